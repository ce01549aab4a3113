//! Received snapshots: collected in table files, installed by one atomic ingestion.
//!
//! One call ingests, in this order: a file with a range tombstone for each range to clear,
//! the files of the snapshot, a file with the puts. RocksDB gives files of one call that
//! overlap ascending sequence numbers, so that the tombstones hide what was there before and
//! nothing that comes with them; a test keeps watch on that. The call is one edit of the
//! manifest: after a crash there is all of it, or nothing.

use super::open::table_options;
use super::RocksEngine;
use crate::engine::{assert_installable, check_ascending, Staged, Stager, WriteBatch};
use crate::fatal;
use bytes::Bytes;
use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter};
use std::any::Any;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::OnceLock;

/// A snapshot's file that has reached this size is followed by another one, bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The writer borrows its options for as long as it lives.
fn writer_options() -> &'static Options {
    static OPTIONS: OnceLock<Options> = OnceLock::new();
    OPTIONS.get_or_init(|| table_options(None))
}

fn to_io(error: rocksdb::Error) -> io::Error {
    let full = error.to_string().contains("No space left");
    io::Error::new(
        if full {
            io::ErrorKind::StorageFull
        } else {
            io::ErrorKind::Other
        },
        error,
    )
}

/// Files that are removed with it, except those that have been ingested and so moved away.
#[derive(Default)]
struct Files {
    paths: Vec<PathBuf>,
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.paths {
            if let Err(error) = fs::remove_file(path) {
                // Opening the engine tries again.
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, path = %path.display(), "cannot remove a staged file");
                }
            }
        }
    }
}

/// One table file that is being written.
struct TableFile {
    writer: SstFileWriter<'static>,
}

impl TableFile {
    fn create(path: &Path) -> Result<Self, rocksdb::Error> {
        let writer = SstFileWriter::create(writer_options());
        writer.open(path)?;
        Ok(TableFile { writer })
    }
}

pub(super) struct RocksStager {
    dir: PathBuf,
    id: u64,
    files: Files,
    current: Option<TableFile>,
    first: Option<Vec<u8>>,
    last: Vec<u8>,
    records: u64,
}

impl Stager for RocksStager {
    fn add(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if self.first.is_some() {
            check_ascending(&self.last, key)?;
        }
        if self
            .current
            .as_ref()
            .is_some_and(|file| file.writer.file_size() >= FILE_BYTES_MAX)
        {
            self.finish_file()?;
        }
        if self.current.is_none() {
            let path = self
                .dir
                .join(format!("{}-{}.sst", self.id, self.files.paths.len()));
            self.files.paths.push(path.clone());
            self.current = Some(TableFile::create(&path).map_err(to_io)?);
        }
        let file = self.current.as_mut().expect("made above");
        file.writer.put(key, value).map_err(to_io)?;
        self.first.get_or_insert_with(|| key.to_vec());
        self.last.clear();
        self.last.extend_from_slice(key);
        self.records += 1;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<Box<dyn Staged>> {
        self.finish_file()?;
        let RocksStager {
            files,
            first,
            last,
            records,
            ..
        } = *self;
        Ok(Box::new(RocksStaged {
            files,
            span: first.map(|first| (first, last)),
            records,
        }))
    }
}

impl RocksStager {
    /// Completes the current file, synced.
    fn finish_file(&mut self) -> io::Result<()> {
        match self.current.take() {
            Some(mut file) => file.writer.finish().map_err(to_io),
            None => Ok(()),
        }
    }
}

pub(super) struct RocksStaged {
    files: Files,
    /// First and last key.
    span: Option<(Vec<u8>, Vec<u8>)>,
    records: u64,
}

impl Staged for RocksStaged {
    fn records(&self) -> u64 {
        self.records
    }

    fn as_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl RocksEngine {
    fn next_staged(&self) -> u64 {
        self.next_staged.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn new_stager(&self) -> RocksStager {
        RocksStager {
            dir: self.staging.clone(),
            id: self.next_staged(),
            files: Files::default(),
            current: None,
            first: None,
            last: Vec::new(),
            records: 0,
        }
    }

    /// Writes one file of this installation. `fill` must add something.
    fn write_file(
        &self,
        files: &mut Files,
        fill: impl FnOnce(&mut SstFileWriter<'static>) -> Result<(), rocksdb::Error>,
    ) {
        let path = self
            .staging
            .join(format!("{}-install.sst", self.next_staged()));
        files.paths.push(path.clone());
        let written = TableFile::create(&path).and_then(|mut file| {
            fill(&mut file.writer)?;
            file.writer.finish()
        });
        if let Err(error) = written {
            fatal("preparing the installation of a snapshot", &error);
        }
    }

    pub(super) fn install_staged(
        &self,
        clear: &[(Bytes, Bytes)],
        mut staged: RocksStaged,
        puts: &WriteBatch,
    ) {
        let span = staged
            .span
            .as_ref()
            .map(|(first, last)| (first.as_slice(), last.as_slice()));
        assert_installable(clear, span, puts);
        let mut files = Files::default();
        if clear.iter().any(|(start, end)| start < end) {
            self.write_file(&mut files, |writer| {
                clear
                    .iter()
                    .filter(|(start, end)| start < end)
                    .try_for_each(|(start, end)| writer.delete_range(start, end))
            });
        }
        files.paths.append(&mut staged.files.paths);
        if !puts.puts.is_empty() {
            // Table files are sorted; of several writes of a key the last counts.
            let puts: BTreeMap<_, _> = puts.puts.iter().map(|(key, value)| (key, value)).collect();
            self.write_file(&mut files, |writer| {
                puts.into_iter().try_for_each(|(key, value)| match value {
                    Some(value) => writer.put(key, value),
                    None => writer.delete(key),
                })
            });
        }
        // Most of it while others still write, the rest while they wait.
        self.flush_and_wait();
        let _no_writes = self.install_lock.write();
        self.flush_and_wait();
        if files.paths.is_empty() {
            return;
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        if let Err(error) = self
            .db
            .ingest_external_file_opts(&options, files.paths.clone())
        {
            fatal("installing a snapshot", &error);
        }
    }
}
