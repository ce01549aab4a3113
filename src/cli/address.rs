//! Addresses as they are typed.

use super::Invalid;

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name or address; an IPv6 address in brackets. Empty = every interface.
    pub host: String,
    /// 0 = the system chooses.
    pub port: u16,
}

impl Address {
    /// Reads `host:port`, `[ipv6]:port` or `:port`.
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let plain = !host.contains([':', '[', ']', '/', '=', ',', ' ']);
        (bracketed || plain).then_some(())?;
        Some(Self {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }

    /// Whether it means every interface, and so no machine in particular.
    pub fn is_any(&self) -> bool {
        matches!(self.host.as_str(), "" | "0.0.0.0" | "[::]")
    }

    /// Whether it means, wherever it is read, the machine on which it is read.
    pub fn is_own(&self) -> bool {
        let host = self.host.as_str();
        self.is_any() || host == "localhost" || host == "[::1]" || host.starts_with("127.")
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// An address to listen on; `what` is the flag that it was given with.
pub fn listen(what: &str, text: &str) -> Result<Address, Invalid> {
    let mut address = Address::parse(text).ok_or_else(|| {
        Invalid(format!(
            "{what} '{text}': expected host:port, for example 10.0.0.11:50051"
        ))
    })?;
    if address.host.is_empty() {
        address.host = "0.0.0.0".into();
    }
    Ok(address)
}

/// What others are told to reach who listens on `listens`: host and port, or a host with its port;
/// that address itself if nothing was `told`.
pub fn advertised(
    what: &str,
    told: Option<&str>,
    listens: &Address,
    example: &str,
) -> Result<Address, Invalid> {
    let Some(text) = told else {
        return Ok(listens.clone());
    };
    let whole = match text.contains(':') && !text.ends_with(']') {
        true => text.to_owned(),
        false => format!("{text}:{}", listens.port),
    };
    listen(what, &whole).map_err(|_| {
        Invalid(format!(
            "{what} '{text}': expected host:port or host, for example {example}"
        ))
    })
}

/// An address that others shall reach.
pub fn check(what: &str, text: &str) -> Result<Address, Invalid> {
    match Address::parse(text) {
        Some(address) if !address.is_any() && address.port != 0 => Ok(address),
        _ => Err(Invalid(format!(
            "{what} '{text}': expected host:port of one machine, for example 10.0.0.11:50051"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, listens, reaches) in [
            ("10.0.0.11:50051", Some("10.0.0.11:50051"), true),
            ("node1:50051", Some("node1:50051"), true),
            ("[fd00::1]:50051", Some("[fd00::1]:50051"), true),
            ("127.0.0.1:0", Some("127.0.0.1:0"), false),
            (":8080", Some("0.0.0.0:8080"), false),
            ("0.0.0.0:8080", Some("0.0.0.0:8080"), false),
            ("node1", None, false),
            ("node1:", None, false),
            ("node1:http", None, false),
            ("node1:99999", None, false),
            ("fd00::1:50051", None, false),
            ("http://node1:50051", None, false),
            ("", None, false),
        ] {
            let listening = listen("--address", text)
                .ok()
                .map(|address| address.to_string());
            assert_eq!(listening.as_deref(), listens, "{text}");
            assert_eq!(check("--address", text).is_ok(), reaches, "{text}");
        }
    }

    #[test]
    fn whose_address() {
        for (text, own) in [
            ("localhost:1", true),
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("0.0.0.0:1", true),
            ("10.0.0.1:1", false),
            ("node1:1", false),
        ] {
            assert_eq!(listen("", text).unwrap().is_own(), own, "{text}");
        }
    }
}
