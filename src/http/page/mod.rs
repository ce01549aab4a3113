//! `/`: the status page. Its files are part of the program, nothing is fetched from elsewhere,
//! and the page may neither run nor load anything else (`CONTENT_SECURITY_POLICY`).

use super::answer::{bytes_response, digest, has, Failure};
use axum::body::Body;
use axum::extract::Path;
use axum::http::{header, HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// One file of the page.
pub struct File {
    name: &'static str,
    content_type: &'static str,
    content: &'static str,
}

static INDEX: File = File {
    name: "",
    content_type: "text/html; charset=utf-8",
    content: include_str!("index.html"),
};

/// What is below `/assets/`.
static ASSETS: &[File] = &[
    File {
        name: "page.css",
        content_type: "text/css; charset=utf-8",
        content: include_str!("assets/page.css"),
    },
    File {
        name: "icon.svg",
        content_type: "image/svg+xml",
        content: include_str!("assets/icon.svg"),
    },
    File {
        name: "page.js",
        content_type: SCRIPT,
        content: include_str!("assets/page.js"),
    },
    File {
        name: "dom.js",
        content_type: SCRIPT,
        content: include_str!("assets/dom.js"),
    },
    File {
        name: "stores.js",
        content_type: SCRIPT,
        content: include_str!("assets/stores.js"),
    },
    File {
        name: "keyspace.js",
        content_type: SCRIPT,
        content: include_str!("assets/keyspace.js"),
    },
    File {
        name: "range.js",
        content_type: SCRIPT,
        content: include_str!("assets/range.js"),
    },
    File {
        name: "work.js",
        content_type: SCRIPT,
        content: include_str!("assets/work.js"),
    },
];

/// `GET /`
pub async fn index(headers: HeaderMap) -> Response {
    INDEX.response(&headers)
}

/// `GET /assets/{name}`
pub async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|file| file.name == name) {
        Some(file) => file.response(&headers),
        None => {
            let known: Vec<&str> = ASSETS.iter().map(|file| file.name).collect();
            let known = known.join(", ");
            Failure::NotFound(format!(
                "{name:?} is no file of the page; there are {known}"
            ))
            .response()
        }
    }
}

impl File {
    fn response(&self, headers: &HeaderMap) -> Response {
        let etag = format!("\"{}\"", digest(self.content.as_bytes()));
        let mut response = match has(headers, &etag) {
            true => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                response
            }
            false => bytes_response(StatusCode::OK, self.content_type, self.content.into()),
        };
        let headers = response.headers_mut();
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            headers.insert(header::ETAG, etag);
        }
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_FRAME_OPTIONS, "DENY"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static File> {
        ASSETS.iter().chain([&INDEX])
    }

    #[test]
    fn a_file_is_sent_once() {
        let response = INDEX.response(&HeaderMap::new());
        assert_eq!(response.status(), 200);
        let etag = response.headers()[header::ETAG].clone();
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, etag);
        assert_eq!(INDEX.response(&headers).status(), 304);
        assert_eq!(ASSETS[0].response(&headers).status(), 200);
    }

    /// What the policy would forbid is not tried: no inline code or style, nothing from
    /// elsewhere; and texts never become markup.
    #[test]
    fn the_page_keeps_to_its_policy() {
        for file in all() {
            let text = file.content.replace("http://www.w3.org/", "");
            for word in [
                "http://",
                "https://",
                "@import",
                "innerHTML",
                "eval(",
                "javascript:",
            ] {
                assert!(!text.contains(word), "{word} in {:?}", file.name);
            }
        }
        for word in ["style=", "<style", "onclick", "onload"] {
            assert!(!INDEX.content.contains(word), "{word} in the page");
        }
    }

    #[test]
    fn what_the_page_names_is_served() {
        let served = |name: &str| ASSETS.iter().any(|file| file.name == name);
        for file in all() {
            let quoted = file.content.split(['"', '\'']);
            for named in
                quoted.filter_map(|text| text.strip_prefix("/assets/").or(text.strip_prefix("./")))
            {
                assert!(served(named), "{named}, named by {:?}", file.name);
            }
        }
        // And every element that the scripts look for by its id is there.
        for file in all().filter(|file| file.name.ends_with(".js")) {
            for call in ["getElementById(\"", " at(\"", "(at(\""] {
                for rest in file.content.split(call).skip(1) {
                    let id = rest.split('"').next().unwrap_or_default();
                    let there = INDEX.content.contains(&format!("id=\"{id}\""));
                    assert!(there, "#{id}, wanted by {}", file.name);
                }
            }
        }
    }
}
