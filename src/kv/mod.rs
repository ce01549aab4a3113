//! Keys and values over HTTP: the strings of Redis's database 0, for who has `curl` and nothing else.
//!
//! ```text
//! POST /kv/set      {"key": "a", "value": "1"}      → {"status": "success", "key": "a"}
//! GET  /kv/get?key=a                                → {"status": "success", "key": "a", "value": "1"}
//! POST /kv/delete?key=a                             → {"status": "success", "key": "a", "deleted": true}
//! GET  /kv/list?limit=100&cursor=…                  → {"count": 1, "keys": ["a"], "cursor": null, …}
//! ```
//!
//! Keys and values are bytes. In a query they are percent-encoded. In JSON, what is no UTF-8 stands
//! in Base64 (RFC 4648, with padding) under the name with `_base64` behind it, both ways: `key_base64`,
//! `value_base64`, and in a list `keys_base64`.
//!
//! `server.rs` speaks HTTP, `request.rs` reads what is asked, `strings.rs` asks the ranges.

mod request;
mod server;
mod strings;

pub use server::{bind, run};
