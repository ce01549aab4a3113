//! What a container's image asks of its process before it starts: to go on as another user than
//! root, and to note where it listens, so that a health check without a shell finds it.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{lchown, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the file that holds the gRPC address of this container's node: `start` writes it, and
/// `probe` reads it where it is given no address. Set by the image.
const ADDRESS_FILE: &str = "RANGEKV_ADDRESS_FILE";

/// Where a store without flags listens.
const DEFAULT_ADDRESS: &str = "127.0.0.1:50051";

/// A user and a group by number: an image needs no list of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
}

impl std::str::FromStr for User {
    type Err = String;

    /// `UID` or `UID:GID`; the group is the user's number if it is absent.
    fn from_str(text: &str) -> Result<Self, String> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => Ok(User { uid, gid }),
            _ => Err("expected UID or UID:GID as numbers, for example 65532:65532".into()),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// Gives the data directory to `user` and goes on as that user, if this process is root's:
/// begins anew, in the same process and with the same arguments. Returns where there is nothing
/// to do.
///
/// Errors: the directory can't be given away, or holds what is not ours.
pub fn become_user(user: User, data_dir: &Path) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() || user.uid == 0 {
        return Ok(());
    }
    give(data_dir, user).map_err(|error| {
        let path = data_dir.display();
        format!(
            "{path} can't be given to uid {} ({error}): run `chown -R {user} {path}` on the \
             machine that holds it, or start the container with --user and the uid that owns it",
            user.uid
        )
    })?;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "rangekv".into());
    // Of root's supplementary groups the standard library lets none pass on.
    let error = Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .uid(user.uid)
        .gid(user.gid)
        .exec();
    Err(format!(
        "can't go on as uid {} ({error}): start the container with --user {user}",
        user.uid
    ))
}

/// Makes the directory if need be, and `user` the owner of it and of all that it holds.
fn give(data_dir: &Path, user: User) -> io::Result<()> {
    fs::create_dir_all(data_dir)?;
    if fs::metadata(data_dir)?.uid() == user.uid {
        return Ok(());
    }
    // A wrong --data-dir shall not cost another program its files.
    let ours = |name: &OsStr| name == "LOCK" || name == "IDENTITY";
    let mut foreign = None;
    for entry in fs::read_dir(data_dir)? {
        let name = entry?.file_name();
        if ours(&name) {
            foreign = None;
            break;
        }
        if name != "lost+found" {
            foreign = Some(name);
        }
    }
    if let Some(foreign) = foreign {
        return Err(io::Error::other(format!(
            "it is not a data directory of rangekv, but holds {foreign:?}"
        )));
    }
    give_all(data_dir, user)
}

/// The directory itself last: if this is interrupted, the next start begins again.
fn give_all(path: &Path, user: User) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            if path.file_name() != Some(OsStr::new("lost+found")) {
                give_all(&path, user)?;
            }
        }
    }
    lchown(path, Some(user.uid), Some(user.gid))
}

/// Notes where this node's gRPC port is, if the image asks for it.
pub fn note_address(bind: &str) {
    let Some(file) = address_file() else { return };
    let address = bind
        .replace("0.0.0.0:", "127.0.0.1:")
        .replace("[::]:", "[::1]:");
    // As another user, this process comes here for the second time.
    if fs::read(&file).is_ok_and(|noted| noted == address.as_bytes()) {
        return;
    }
    // A read-only container has nowhere to note it: its health check has to name the address.
    if let Err(error) = fs::write(&file, &address) {
        eprintln!(
            "rangekv: {} can't be written ({error}): a health check has to name the address, as \
             in `probe {address}`",
            file.display()
        );
    }
}

/// The address that [`note_address`] noted, else that of a store without flags.
pub fn noted_address() -> Result<String, String> {
    let Some(file) = address_file() else {
        return Ok(DEFAULT_ADDRESS.into());
    };
    let noted = fs::read_to_string(&file);
    noted.map_err(|error| {
        format!(
            "no address is given, and none in {}: {error}",
            file.display()
        )
    })
}

fn address_file() -> Option<PathBuf> {
    let file = std::env::var_os(ADDRESS_FILE)?;
    (!file.is_empty()).then(|| file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        for (text, expected) in [
            ("65532", Some((65532, 65532))),
            ("1000:100", Some((1000, 100))),
            ("root", None),
            ("1000:", None),
            ("-1", None),
            ("", None),
        ] {
            let user = text.parse::<User>().ok().map(|user| (user.uid, user.gid));
            assert_eq!(user, expected, "{text:?}");
        }
    }

    #[test]
    fn a_directory_of_others_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letters"), "").unwrap();
        let other = rustix::process::geteuid().as_raw() + 1;
        let user = User {
            uid: other,
            gid: other,
        };
        let error = give(dir.path(), user).unwrap_err();
        assert!(error.to_string().contains("letters"), "{error}");
    }
}
