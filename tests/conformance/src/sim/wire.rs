//! Heads as a codec writes them. Simvoy ends at the codec's door; a transcript shows what is behind it.
//!
//! | the head has                           | request                         | answer |
//! | -------------------------------------- | ------------------------------- | ------ |
//! | a length                               | as it is                        | as it is |
//! | none, and the body came piece by piece | `transfer-encoding: chunked`    | the same |
//! | none, in HTTP/2                        | nothing is added                | |
//! | none, and no body                      | `content-length: 0` with a POST | `content-length: 0`, but not with a 204 |

use simvoy::{Headers, Request, Response};

use crate::observation::Message;

/// Whether a codec knew the whole message when it wrote the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Head and end in one.
    AtOnce,
    /// The body came later.
    PieceByPiece,
    /// HTTP/2 frames every message itself.
    InFrames,
}

/// A request as its receiver reads it.
pub fn request(request: &Request, written: Written) -> Message {
    let text = |name: &str| request.headers.text(name).unwrap_or_default().to_owned();
    let (method, path) = (text(":method"), text(":path"));
    let mut headers = vec![("host".to_owned(), text(":authority").into_bytes())];
    headers.extend(plain(&request.headers));
    let has_length = request.headers.first("content-length").is_some();
    match written {
        Written::PieceByPiece if !has_length => headers.push(chunked()),
        Written::AtOnce if !has_length && method == "POST" => headers.push(no_length()),
        Written::PieceByPiece | Written::AtOnce | Written::InFrames => {}
    }
    Message { start: format!("{method} {path}"), headers, body: request.body.clone() }
}

/// An answer as its sender reads it.
pub fn answer(response: &Response) -> Message {
    let mut headers: Vec<_> = plain(&response.headers).collect();
    let has_length = response.headers.first("content-length").is_some();
    let is_empty = response.body.is_empty() && response.trailers.0.is_empty();
    match response.code() {
        204 | 304 => {}
        _ if has_length => {}
        _ if is_empty => headers.push(no_length()),
        _ => headers.push(chunked()),
    }
    Message { start: response.code().to_string(), headers, body: response.body.clone() }
}

fn plain(headers: &Headers) -> impl Iterator<Item = (String, Vec<u8>)> {
    headers.0.iter().filter(|(name, _)| !name.starts_with(':')).flat_map(|(name, value)| lines(name, value))
}

/// A header is a line; what has line breaks in it is read as several.
fn lines(name: &str, value: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text = value.iter().map(|byte| char::from(*byte)).collect::<String>();
    let bytes = |text: &str| text.chars().map(|char| char as u8).collect();
    let mut parts = text.split("\r\n");
    let first = parts.next().unwrap_or_default();
    let injected = parts.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_owned(), bytes(value)));
    std::iter::once((name.to_owned(), bytes(first))).chain(injected).collect()
}

fn chunked() -> (String, Vec<u8>) {
    ("transfer-encoding".to_owned(), b"chunked".to_vec())
}

fn no_length() -> (String, Vec<u8>) {
    ("content-length".to_owned(), b"0".to_vec())
}
