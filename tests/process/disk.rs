//! Disks that can lose their power: ext4 in an image file, mounted through a loop device.
//!
//! The image holds only what the file system has pushed to the device, in answer to fsync or
//! by its own write-back. A copy of it, taken while it is mounted, is therefore what a machine
//! would find after a power cut. `commit=300` keeps the journal from writing by itself.
//!
//! The mounts live in a mount namespace of the calling thread and of the processes that it
//! starts, and vanish with them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Sparse. Room enough that nothing is refused for want of space.
const IMAGE_BYTES: u64 = 2 << 30;

/// One node's disk, mounted.
pub struct Disk {
    /// Holds the image and the mount point.
    root: PathBuf,
    /// Cuts so far.
    cuts: u32,
}

/// Gives the calling thread its own mounts; the reason, if that is not possible here.
#[allow(unsafe_code)]
pub fn own_mounts() -> Result<(), String> {
    // SAFETY: unshare takes flags only; it changes the calling thread's view of mounts.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        let why = std::io::Error::last_os_error();
        return Err(format!("no mount namespace ({why}): this needs root"));
    }
    run("mount", &["--make-rprivate", "/"])
}

impl Disk {
    /// A formatted, mounted disk below `root`; the reason, if that is not possible here.
    pub fn new(root: &Path) -> Result<Disk, String> {
        let disk = Disk {
            root: root.into(),
            cuts: 0,
        };
        std::fs::create_dir_all(disk.mount_point()).map_err(|e| e.to_string())?;
        let image = std::fs::File::create(disk.image(0)).map_err(|e| e.to_string())?;
        image.set_len(IMAGE_BYTES).map_err(|e| e.to_string())?;
        run("mkfs.ext4", &["-q", &text(&disk.image(0))])?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.root.join("mounted")
    }

    /// Takes the disk as it is now, without anything that the system still held back. The
    /// processes that used it must have ended.
    pub fn copy(&self) {
        let (from, to) = (self.image(self.cuts), self.image(self.cuts + 1));
        run("cp", &["--sparse=always", &text(&from), &text(&to)]).unwrap();
    }

    /// Puts the copy in the disk's place.
    pub fn switch_to_copy(&mut self) {
        run("umount", &[&text(&self.mount_point())]).unwrap();
        std::fs::remove_file(self.image(self.cuts)).unwrap();
        self.cuts += 1;
        self.mount().unwrap();
    }

    /// A power cut that only this disk sees.
    pub fn cut(&mut self) {
        self.copy();
        self.switch_to_copy();
    }

    fn mount(&self) -> Result<(), String> {
        let (image, to) = (text(&self.image(self.cuts)), text(&self.mount_point()));
        run("mount", &["-o", "loop,commit=300", &image, &to])
    }

    fn image(&self, cuts: u32) -> PathBuf {
        self.root.join(format!("image-{cuts}"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a test that fails drops its nodes later.
        run("umount", &["--lazy", &text(&self.mount_point())]).ok();
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").into()
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let what = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|e| format!("{}: {e}", what()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{}: {}",
            what(),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

#[test]
fn a_cut_keeps_what_was_synced_and_loses_the_rest() {
    use std::io::Write;
    let root = tempfile::tempdir().unwrap();
    let disk = own_mounts().and_then(|()| Disk::new(root.path()));
    let mut disk = match disk {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: {why}"),
    };
    let file = |name: &str| disk.mount_point().join(name);
    let [synced, tail, fresh] = [file("synced"), file("tail"), file("fresh")];
    for path in [&synced, &tail] {
        let mut file = std::fs::File::create(path).unwrap();
        file.write_all(b"synced").unwrap();
        file.sync_all().unwrap();
    }
    let mut file = std::fs::File::options().append(true).open(&tail).unwrap();
    file.write_all(b", not synced").unwrap();
    drop(file); // An open file keeps a disk from being unmounted.
    std::fs::write(&fresh, "not synced").unwrap();
    disk.cut();
    let read = |path| std::fs::read_to_string(path).ok();
    assert_eq!(read(&synced).as_deref(), Some("synced"));
    assert_eq!(read(&tail).as_deref(), Some("synced"));
    assert_eq!(read(&fresh), None);
}
