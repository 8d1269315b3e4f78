//! The small static web server that stands for the `nginx` and `httpd` images (`petset web`): serves a directory
//! on the pod's own address.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// What it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// The document root.
    pub root: PathBuf,
    /// Whether a welcome page is shown where there is no index, as the image would.
    pub welcome: bool,
}

const WELCOME: &str = "<!DOCTYPE html>\n<html>\n<head><title>petset</title></head>\n<body>\n\
    <h1>petset's static web server</h1>\n<p>It stands for the image of this container. Mount a volume at the \
    document root to serve files of your own.</p>\n</body>\n</html>\n";

/// What `petset web --listen ADDRESS:PORT --root DIR [--welcome]` does, until SIGTERM or SIGINT.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let complain = |message: String| {
        let _ = writeln!(std::io::stderr(), "petset web: {message}");
        ExitCode::FAILURE
    };
    let (address, site) = match parse(arguments) {
        Ok(parsed) => parsed,
        Err(message) => return complain(message),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(format!("cannot start: {error}")),
    };
    match runtime.block_on(serve(address, site)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(format!("{address}: {error}")),
    }
}

fn parse(arguments: &[OsString]) -> Result<(SocketAddr, Site), String> {
    let mut address = None;
    let mut site = Site::default();
    let mut rest = arguments.iter().map(|a| a.to_string_lossy().into_owned());
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--listen" => {
                let text = value()?;
                address = Some(text.parse().map_err(|_| format!("{text:?} is no ADDRESS:PORT"))?);
            }
            "--root" => site.root = value()?.into(),
            "--welcome" => site.welcome = true,
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    Ok((address.ok_or("--listen ADDRESS:PORT is missing")?, site))
}

async fn serve(address: SocketAddr, site: Site) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let listener = tokio::net::TcpListener::bind(address).await?;
    let mut quit = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! { _ = quit.recv() => {}, _ = interrupt.recv() => {} }
    };
    let _ = writeln!(
        std::io::stdout(),
        "serving {} on http://{address}/",
        site.root.display()
    );
    tokio::select! {
        served = axum::serve(listener, router(site)).into_future() => served,
        () = stop => Ok(()),
    }
}

/// The server as a router.
pub fn router(site: Site) -> Router {
    Router::new().fallback(answer).with_state(Arc::new(site))
}

async fn answer(State(site): State<Arc<Site>>, request: Request<Body>) -> Response<Body> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = if method == Method::GET || method == Method::HEAD {
        let found = tokio::task::spawn_blocking(move || find(&site, &path)).await;
        found.unwrap_or(Found::Status(StatusCode::INTERNAL_SERVER_ERROR))
    } else {
        Found::Status(StatusCode::METHOD_NOT_ALLOWED)
    };
    response.into_response(&method)
}

enum Found {
    File {
        bytes: Vec<u8>,
        content_type: &'static str,
    },
    Redirect(String),
    Status(StatusCode),
}

impl Found {
    fn into_response(self, method: &Method) -> Response<Body> {
        let (status, content_type, bytes, location) = match self {
            Found::File { bytes, content_type } => (StatusCode::OK, content_type, bytes, None),
            Found::Redirect(to) => (StatusCode::MOVED_PERMANENTLY, "text/html", page_of(301), Some(to)),
            Found::Status(status) => (status, "text/html", page_of(status.as_u16()), None),
        };
        let length = bytes.len();
        let body = if *method == Method::HEAD {
            Body::empty()
        } else {
            Body::from(bytes)
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::SERVER, HeaderValue::from_static("petset"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if let Some(Ok(location)) = location.map(HeaderValue::try_from) {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}

fn page_of(code: u16) -> Vec<u8> {
    let reason = StatusCode::from_u16(code)
        .ok()
        .and_then(|s| s.canonical_reason())
        .unwrap_or_default();
    let title = format!("{code} {reason}");
    format!("<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n</body>\n</html>\n")
        .into()
}

fn find(site: &Site, path: &str) -> Found {
    let Some(relative) = decode(path) else {
        return Found::Status(StatusCode::BAD_REQUEST);
    };
    let wanted = site.root.join(&relative);
    let Ok(metadata) = std::fs::metadata(&wanted) else {
        let is_root = relative.as_os_str().is_empty() || relative == Path::new("index.html");
        return if is_root && site.welcome {
            welcome()
        } else {
            Found::Status(StatusCode::NOT_FOUND)
        };
    };
    let file = if metadata.is_dir() {
        if !path.ends_with('/') {
            return Found::Redirect(format!("{path}/"));
        }
        wanted.join("index.html")
    } else {
        wanted
    };
    match std::fs::read(&file) {
        Ok(bytes) => Found::File {
            bytes,
            content_type: content_type(&file),
        },
        Err(_) if metadata.is_dir() && site.welcome && relative.as_os_str().is_empty() => welcome(),
        // As nginx: a directory without index is not listed, an unreadable file not shown.
        Err(_) => Found::Status(StatusCode::FORBIDDEN),
    }
}

fn welcome() -> Found {
    Found::File {
        bytes: WELCOME.into(),
        content_type: "text/html",
    }
}

/// The path below the root that a URL path names; `None` for one that is malformed or climbs out.
fn decode(path: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok())?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    let decoded = String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))?;
    let mut relative = PathBuf::new();
    for component in Path::new(decoded.trim_start_matches('/')).components() {
        match component {
            Component::Normal(name) => relative.push(name),
            Component::CurDir => {}
            Component::ParentDir if relative.pop() => {}
            _ => return None,
        }
    }
    Some(relative)
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "html" | "htm" => "text/html",
        "css" => "text/css",
        "js" | "mjs" => "application/javascript",
        "json" => "application/json",
        "txt" | "md" | "log" => "text/plain",
        "xml" => "text/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "ico" => "image/x-icon",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn get(site: &Site, method: &str, path: &str) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .expect("a request");
        let response = answer(State(Arc::new(site.clone())), request).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn files_are_served_and_nothing_outside_the_root() {
        let directory = tempfile::tempdir().expect("tempdir");
        let root = directory.path().join("html");
        std::fs::create_dir_all(root.join("sub")).expect("made");
        std::fs::write(directory.path().join("secret"), "no").expect("written");
        std::fs::write(root.join("a b.txt"), "text").expect("written");
        let site = Site {
            root: root.clone(),
            welcome: false,
        };
        assert_eq!(get(&site, "GET", "/a%20b.txt").await, (200, "text".into()));
        assert_eq!(get(&site, "HEAD", "/a%20b.txt").await, (200, String::new()));
        assert_eq!(get(&site, "GET", "/").await.0, 403);
        std::fs::write(root.join("index.html"), "index").expect("written");
        assert_eq!(get(&site, "GET", "/").await, (200, "index".into()));
        assert_eq!(get(&site, "GET", "/sub").await.0, 301);
        assert_eq!(get(&site, "GET", "/none").await.0, 404);
        assert_eq!(get(&site, "POST", "/").await.0, 405);
        for climb in [
            "/../secret",
            "/%2e%2e/secret",
            "/sub/../../secret",
            "/%2e%2e%2fsecret",
        ] {
            assert_eq!(get(&site, "GET", climb).await.0, 400, "{climb}");
        }
        assert_eq!(get(&site, "GET", "/%zz").await.0, 400);
    }

    #[tokio::test]
    async fn a_welcome_page_is_shown_only_where_the_image_would_have_one() {
        let directory = tempfile::tempdir().expect("tempdir");
        let site = |welcome| Site {
            root: directory.path().join("none"),
            welcome,
        };
        assert_eq!(get(&site(true), "GET", "/").await.0, 200);
        assert_eq!(get(&site(false), "GET", "/").await.0, 404);
    }
}
