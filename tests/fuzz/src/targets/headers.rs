//! The header policy: what of a request is kept, stored, read back and sent again, against the table in `headers.rs` of
//! the core.
//!
//! Input: names to drop GS headers as they arrived GS headers as routed GS attempt GS authority GS body.

use crate::input::{Sections, owned};
use crate::wire;
use redeliver_core::headers::{Envelope, FIELDS_MAX, HeaderList, OWN_HEADERS, Unsendable, forged};
use redeliver_core::message::{LargePart, Message, MessageId, Road, Terms, Ties, decode};
use redeliver_core::neighbours::Hops;
use redeliver_core::slot::{Generation, SlotIndex};
use redeliver_core::units::{ClusterName, Millis};

const KEY: &str = "idempotency-key";
const ID: MessageId = MessageId([0xa5; 16]);

pub(super) fn target(bytes: &[u8]) {
    let mut sections = Sections::of(bytes);
    // The configuration has them in lower case.
    let dropped: Vec<String> = sections.texts().iter().map(|name| name.to_ascii_lowercase()).collect();
    let (arrived, routed) = (sections.headers(), sections.headers());
    let attempt = sections.number() as u16;
    let authority = sections.items().first().and_then(|item| std::str::from_utf8(item).ok());

    check_forged(&arrived);
    let (seen, arrived) = (&arrived, check_capture(&arrived, &dropped));
    let routed = if routed.is_empty() { None } else { Some((check_capture(&routed, &dropped), routed)) };
    let Ok(arrived) = arrived else { return };
    assert_eq!(arrived.other(seen, &dropped), Ok(None), "{seen:?}");
    let routed = routed.and_then(|(captured, headers)| {
        let other = captured.clone().map(|form| (form != arrived).then_some(form));
        assert_eq!(arrived.other(&headers, &dropped), other, "{headers:?}");
        captured.ok()
    });
    let message = Message {
        id: ID,
        hops: Hops::FIRST,
        cluster: ClusterName("orders".to_owned()),
        arrived,
        routed,
        body: sections.bytes().to_vec(),
        ties: Ties::default(),
    };
    check_is_read_back(&message);
    check_request(&message, attempt, authority.filter(|name| wire::is_part_of_line(name.as_bytes())));
}

/// Our names are found exactly if they are there.
fn check_forged(headers: &HeaderList) {
    let found: Vec<&str> = forged(headers).collect();
    for name in OWN_HEADERS {
        assert_eq!(found.contains(&name), headers.first(name).is_some(), "{name}: {headers:?}");
    }
}

/// Kept is what the table keeps, in order and with repetition; refused is exactly what could not be sent.
fn check_capture(headers: &HeaderList, dropped: &[String]) -> Result<Envelope, Unsendable> {
    let captured = Envelope::capture(headers, dropped);
    let expected = expected_fields(headers, dropped);
    match &captured {
        Ok(envelope) => {
            assert_eq!(owned(&envelope.fields), expected, "{headers:?}");
            let scheme = headers.first(":scheme").filter(|scheme| !scheme.is_empty());
            assert_eq!(envelope.scheme, scheme.unwrap_or(b"http"));
            assert_eq!(Some(envelope.path.as_slice()), headers.first(":path"));
            assert_eq!(Some(envelope.method.as_slice()), headers.first(":method"));
            assert_eq!(Some(envelope.authority.as_slice()), headers.first(":authority"));
        }
        Err(reason) => assert!(is_true(*reason, headers, &expected), "{reason}: {headers:?}"),
    }
    captured
}

fn expected_fields(headers: &HeaderList, dropped: &[String]) -> Vec<(String, Vec<u8>)> {
    let options = wire::connection_options(headers);
    let is_kept = |name: &String| !wire::is_never_replayed(name) && !dropped.contains(name) && !options.contains(name);
    owned(headers).into_iter().filter(|(name, _)| is_kept(name)).collect()
}

/// Whether there is such a reason to refuse.
fn is_true(reason: Unsendable, headers: &HeaderList, fields: &[(String, Vec<u8>)]) -> bool {
    let first = |name| headers.first(name).unwrap_or_default();
    match reason {
        Unsendable::Pseudo => {
            let is_odd = |name| headers.all(name).count() != 1 || first(name).is_empty();
            [":method", ":authority", ":path"].into_iter().any(is_odd)
        }
        Unsendable::Method => !wire::is_token(first(":method")),
        Unsendable::Path => {
            let line = [":authority", ":path", ":scheme"];
            line.into_iter().any(|name| headers.first(name).is_some_and(|value| !wire::is_part_of_line(value)))
        }
        Unsendable::Field => {
            fields.iter().any(|(name, value)| !wire::is_token(name.as_bytes()) || !wire::is_value(value))
        }
        Unsendable::TooMany => fields.len() > FIELDS_MAX,
    }
}

/// What was captured is never damaged by its way through shared memory.
fn check_is_read_back(message: &Message) {
    let (slot, generation) = (SlotIndex(1), Generation(2));
    let read = decode(&message.encode(slot, generation), slot, generation);
    assert_eq!(read, Ok(LargePart::Message(Box::new(message.clone()))));
}

/// What leaves is one request: the form that is wanted, with our headers and a key behind it.
fn check_request(message: &Message, attempt: u16, authority: Option<&str>) {
    let terms = Terms { attempt, key_header: KEY, road: Road::Straight { authority }, timeout: Millis(1_500) };
    let request = message.request(&terms);
    wire::assert_is_one_request(&request);
    let form = message.routed.as_ref().unwrap_or(&message.arrived);
    let is_call = is_call(form);
    let is_sent = |(name, _): &(String, Vec<u8>)| !is_call || name != "grpc-timeout";
    let fields: Vec<_> = owned(&form.fields).into_iter().filter(is_sent).collect();
    let pairs = owned(&request);
    let (sent, ours) = pairs[4..].split_at(fields.len());
    assert_eq!(sent, fields, "the sender's");
    assert!(!sent.iter().any(|(name, _)| wire::is_never_replayed(name)), "{sent:?}");
    assert_eq!(request.first(":path"), Some(form.path.as_slice()));
    assert_eq!(request.first(":authority"), Some(authority.map_or(form.authority.as_slice(), str::as_bytes)));

    let id = ID.to_string().into_bytes();
    let mut expected = Vec::new();
    if is_call {
        expected.push(("te".to_owned(), b"trailers".to_vec()));
        expected.push(("grpc-timeout".to_owned(), b"1500m".to_vec()));
    }
    expected.extend([
        ("x-redeliver-id".to_owned(), id.clone()),
        ("x-redeliver-attempt".to_owned(), attempt.to_string().into_bytes()),
        ("x-redeliver-hops".to_owned(), b"1".to_vec()),
    ]);
    if form.fields.first(KEY).is_none() {
        expected.push((KEY.to_owned(), id));
    }
    assert_eq!(ours, expected, "ours");
}

/// Whether its first content type is that of a gRPC call.
fn is_call(form: &Envelope) -> bool {
    form.fields.first("content-type").is_some_and(wire::is_grpc)
}
