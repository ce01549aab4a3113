//! A headless Chromium, spoken to by the DevTools protocol over a pair of pipes: a message is
//! JSON and a zero byte.

use crate::cluster::until;
use serde_json::{json, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Collected by the page itself: errors, and what its security policy forbade.
const WATCH: &str = "window.faults = []; \
    addEventListener('error', e => faults.push(String(e.message))); \
    addEventListener('unhandledrejection', e => faults.push(String(e.reason))); \
    addEventListener('securitypolicyviolation', e => faults.push(e.violatedDirective + ' ' + e.blockedURI));";

/// One page in a browser of its own, which ends with it.
pub struct Browser {
    child: Child,
    requests: File,
    messages: BufReader<File>,
    session: Value,
    last: u64,
}

impl Browser {
    /// Starts the Chromium of this machine; `None` = it has none.
    pub fn start(profile: &Path) -> Option<Browser> {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let found = names.iter().find(|name| {
            let version = Command::new(name).arg("--version").output();
            version.is_ok_and(|output| output.status.success())
        })?;
        let (theirs_in, ours_out) = pipe();
        let (ours_in, theirs_out) = pipe();
        let mut command = Command::new(found);
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--hide-scrollbars", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        give(&mut command, theirs_in, 3);
        give(&mut command, theirs_out, 4);
        let child = command.spawn().unwrap();
        // The child has copies of its ends; ours are closed with the command.
        drop(command);
        let mut browser = Browser {
            child,
            requests: ours_out.into(),
            messages: BufReader::new(ours_in.into()),
            session: Value::Null,
            last: 0,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.call("Target.attachToTarget", attach)["sessionId"].clone();
        browser.call("Page.enable", json!({}));
        let watch = json!({ "source": WATCH });
        browser.call("Page.addScriptToEvaluateOnNewDocument", watch);
        Some(browser)
    }

    /// The size of the window, and whether it belongs to a phone.
    pub fn resize(&mut self, width: u32, height: u32, phone: bool) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }

    /// Goes to `url`.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// The value of an expression.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", asked);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) {
        until(expression, || match self.evaluate(expression) {
            Value::Bool(true) => Ok(()),
            _ => {
                let text = self.evaluate("document.body.innerText.slice(0, 600)");
                Err(format!("the page says {text}"))
            }
        });
    }

    /// A picture of the window, as PNG in base64.
    pub fn picture(&mut self) -> String {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        picture["data"].as_str().unwrap_or_default().to_owned()
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.requests.write_all(&bytes).unwrap();
        loop {
            let mut bytes = Vec::new();
            self.messages.read_until(0, &mut bytes).unwrap();
            assert!(bytes.pop().is_some(), "Chromium ended during {method}");
            let message: Value = serde_json::from_slice(&bytes).unwrap();
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }
}

impl Drop for Browser {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // The group: a browser is many processes.
        // SAFETY: kill takes numbers only.
        unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
        self.child.wait().ok();
    }
}

/// Reading end and writing end; neither is inherited by children.
#[allow(unsafe_code)]
fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two, which on success are open and nobody else's.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}

/// The child has `end` as its file `number`.
#[allow(unsafe_code)]
fn give(command: &mut Command, end: OwnedFd, number: i32) {
    // Far above what the child is given, so that one gift does not overwrite the other.
    // SAFETY: between fork and exec, dup2 and fcntl are async-signal-safe and touch no memory.
    unsafe {
        let high = libc::fcntl(end.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 64);
        assert!(high >= 64, "{}", std::io::Error::last_os_error());
        let high = OwnedFd::from_raw_fd(high);
        command.pre_exec(move || match libc::dup2(high.as_raw_fd(), number) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}
