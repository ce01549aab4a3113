//! One process that a test starts, signals and outlives.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running, or ended, process. Dropping it kills its whole process group.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in the file `log`.
    ///
    /// It dies with the thread that starts it: a suite that is itself killed leaves nothing
    /// behind.
    #[allow(unsafe_code)]
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Process {
        let file = File::options().create(true).append(true).open(log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0);
        // SAFETY: between fork and exec, prctl is async-signal-safe and touches no memory.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                },
            )
        };
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{name} can't be started: {e}"));
        Process {
            name: name.into(),
            child,
            log: log.into(),
        }
    }

    /// The system's number for it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal` to the process itself, not to its group.
    pub fn signal(&self, signal: i32) {
        send(self.child.id() as i32, signal).unwrap_or_else(|e| panic!("{}: {e}", self.name));
    }

    /// How it ended, waiting up to `patience`; `None` = it runs.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// As [`kill`](Self::kill), with the processes that it has started.
    pub fn kill_all(self) {
        send(-(self.child.id() as i32), libc::SIGKILL)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name));
        self.kill();
    }

    /// SIGKILL, and waits for the end. Fails if it had already ended by itself.
    pub fn kill(mut self) {
        self.signal(libc::SIGKILL);
        let status = self
            .wait(Duration::from_secs(10))
            .expect("a killed process");
        assert_eq!(
            status.signal(),
            Some(libc::SIGKILL),
            "{} had ended by itself",
            self.name
        );
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group: a process that started others may have left them behind.
        send(-(self.child.id() as i32), libc::SIGKILL).ok();
        self.child.wait().ok();
    }
}

/// Processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let parent_of = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // "pid (name) state ppid …", where the name may hold anything.
        let fields = stat.rsplit_once(')')?.1;
        fields.split_whitespace().nth(1)?.parse().ok()
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|child| parent_of(*child) == Some(pid))
        .collect()
}

/// Sends `signal` to a process, or with a negative number to a process group.
#[allow(unsafe_code)]
fn send(pid: i32, signal: i32) -> std::io::Result<()> {
    // SAFETY: kill takes numbers only.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
