//! The planted bugs of all crates, by name. There are none without the feature `planted-bugs`.

/// Bugs of what the simulation does in the product's place.
#[cfg(feature = "planted-bugs")]
const OWN: [&str; 1] = ["deposed_placement_leader"];

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Bugs that only runs with items ([`crate::items`]) can find.
#[cfg(feature = "planted-bugs")]
pub const OF_ITEMS: [&str; 2] = ["condition_below_overlay", "token_forgotten"];

/// Whether a bug of the simulation's own is on.
pub(crate) fn is_planted(name: &str) -> bool {
    #[cfg(feature = "planted-bugs")]
    return PLANTED.with(|planted| planted.get()) == Some(name);
    #[cfg(not(feature = "planted-bugs"))]
    return {
        let _ = name;
        false
    };
}

/// Names of the bugs of this build; those that need items are in `OF_ITEMS`.
pub fn names() -> Vec<&'static str> {
    #[cfg(feature = "planted-bugs")]
    {
        let store = rangekv_store::bugs::Bug::ALL.iter().map(|b| b.name());
        let router = rangekv_router::bugs::Bug::ALL.iter().map(|b| b.name());
        store.chain(router).chain(OWN).collect()
    }
    #[cfg(not(feature = "planted-bugs"))]
    Vec::new()
}

/// Switches one bug on for this thread, or all off. The error says which there are.
pub fn plant(name: Option<&str>) -> Result<(), String> {
    #[cfg(feature = "planted-bugs")]
    let of_items = name.is_some_and(|name| OF_ITEMS.contains(&name));
    #[cfg(not(feature = "planted-bugs"))]
    let of_items = false;
    if !of_items && name.is_some_and(|name| !names().contains(&name)) {
        return Err(match names().is_empty() {
            true => "this build has no planted bugs: build with --features planted-bugs".into(),
            false => format!("there is no such bug; there are {}", names().join(", ")),
        });
    }
    #[cfg(feature = "planted-bugs")]
    {
        use rangekv_router::bugs as router;
        use rangekv_store::bugs as store;
        PLANTED.with(|p| {
            p.set({
                let mut own = OWN.into_iter().chain(OF_ITEMS);
                own.find(|own| name == Some(own))
            })
        });
        let called = |bug: &str| name == Some(bug);
        store::set(store::Bug::ALL.into_iter().find(|b| called(b.name())));
        router::set(router::Bug::ALL.into_iter().find(|b| called(b.name())));
    }
    Ok(())
}
