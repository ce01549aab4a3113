//! The directory of segment files.

use rangekv_store::log::disk::{FileDisk, LogDisk as _};
use std::fs;
use std::path::Path;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn segments_are_written_in_place_and_recycled() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = FileDisk::open(dir.path()).unwrap();
    disk.create(1, 3 << 20).unwrap();
    disk.write_at(1, 0, b"hello").unwrap();
    disk.write_at(1, 5, b" world").unwrap();
    disk.sync(1).unwrap();
    let bytes = disk.read(1).unwrap();
    assert_eq!(bytes.len(), 3 << 20, "space is reserved");
    assert_eq!(&bytes[..12], b"hello world\0");
    disk.erase_from(1, 5).unwrap();
    assert_eq!(&disk.read(1).unwrap()[..12], b"hello\0\0\0\0\0\0\0");
    assert_eq!(disk.read(1).unwrap().len(), 3 << 20);
    disk.create(2, 3 << 20).unwrap();
    disk.remove(1).unwrap();
    assert_eq!(disk.list().unwrap(), [2]);
    drop(disk);

    // One was prepared in the background, one is what segment 1 was.
    let spares = || {
        names(dir.path())
            .iter()
            .filter(|name| name.starts_with("spare-"))
            .count()
    };
    assert_eq!(spares(), 2);
    let mut disk = FileDisk::open(dir.path()).unwrap();
    assert_eq!(disk.list().unwrap(), [2]);
    disk.create(3, 3 << 20).unwrap();
    assert_eq!(spares(), 1);
    disk.create(4, 3 << 20).unwrap();
    assert_eq!(disk.list().unwrap(), [2, 3, 4]);
    assert!(disk.read(1).is_err());
}

#[test]
fn spares_of_another_size_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = FileDisk::open(dir.path()).unwrap();
    disk.create(1, 1 << 10).unwrap();
    disk.create(2, 1 << 12).unwrap();
    assert_eq!(disk.read(2).unwrap().len(), 1 << 12);
}

#[test]
fn what_a_crash_left_half_filled_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("spare-00000007.tmp"), [0; 100]).unwrap();
    drop(FileDisk::open(dir.path()).unwrap());
    assert!(names(dir.path()).is_empty());
}

#[test]
fn errors_name_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = FileDisk::open(&file).err().unwrap().to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
}
