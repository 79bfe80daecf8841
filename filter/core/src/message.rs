//! The large part of a slot: one message, written once, read once per attempt.
//!
//! ```text
//! message = 'M' cell: slot | generation | id | flags | [hops, if not 1] | [fingerprint] | [line] | cluster
//!                     | arrived envelope | routed envelope, if it differs | body
//! receipt = 'R' cell: generation | [memo]
//! ```
//! Numbers and lengths take as many bytes as they need: of a small message with a dozen headers, the lengths were half of
//! what it took beside its own bytes. Messages of fixed sizes, as they were written before, are read; of these, one with
//! hops, fingerprint or line is of the extended format, as is a receipt with a memo.
//! A settled message is overwritten by its receipt before its head is freed: the bytes are given back at once, and a VM
//! that dies between the two writes leaves a slot that says for itself that it was settled. Slot and generation stand
//! inside, so a value that got under another key is found.

use crate::codec::{Damage, Format, Reader, Seal, Writer};
use crate::digest::{Content, Fingerprint, Identity, LineKey};
use crate::grpc::{Protocol, deadline};
use crate::headers::{Envelope, FIELDS_MAX, HEADER_ATTEMPT, HEADER_HOPS, HEADER_ID, HEADER_PASS, HeaderList};
use crate::neighbours::Hops;
use crate::pass::Pass;
use crate::slot::{Generation, SlotIndex};
use crate::units::{ClusterName, Millis};
use std::fmt;

/// 128 random bits, the sender's secret; 32 hexadecimal digits on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// Reads what [`fmt::Display`] writes, and nothing else.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Self> {
        let (pairs, []) = text.as_chunks::<2>() else { return None };
        let mut bytes = [0; 16];
        if pairs.len() != bytes.len() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Some(Self(bytes))
    }
}

/// Two digits for each byte. By hand, like the names of keys: the formatting machinery takes a microsecond for an id, and
/// text that grows by a character at a time half of one.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = vec![0; bytes.len().saturating_mul(2)];
    for (byte, [high, low]) in bytes.iter().zip(text.as_chunks_mut().0) {
        (*high, *low) = (hexadecimal_digit(byte >> 4), hexadecimal_digit(*byte));
    }
    String::from_utf8(text).unwrap_or_default() // digits are UTF-8
}

/// The digit of a byte's lower half.
#[must_use]
pub const fn hexadecimal_digit(byte: u8) -> u8 {
    match byte & 0xf {
        nibble @ 0..=9 => nibble | b'0',
        nibble => nibble.saturating_add(b'a' - 10),
    }
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit & 0xf),
        b'a'..=b'f' => Some((digit & 0xf).saturating_add(9)),
        _ => None,
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

/// What is stored of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who it is.
    pub id: MessageId,
    /// How many filters have stored it, this one included.
    pub hops: Hops,
    /// Where it goes. A slot's head names the destination by its place in a table; this is what that place must say.
    pub cluster: ClusterName,
    /// The request as the sender sent it, less the headers that are never kept.
    pub arrived: Envelope,
    /// What the router made of it; `None` if that is the same or is not wanted (`capture.as: arrived`).
    pub routed: Option<Envelope>,
    /// The whole body.
    pub body: Vec<u8>,
    /// What it has to do with others.
    pub ties: Ties,
}

/// What a message has to do with other requests; nothing, if its sender sent neither key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ties {
    /// How a retry of it is known.
    pub fingerprint: Option<Fingerprint>,
    /// The line in which it is delivered.
    pub line: Option<LineKey>,
}

/// What stays of a message that was delivered, so that a late retry is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memo {
    /// How a retry is known.
    pub fingerprint: Fingerprint,
    /// What its sender was told.
    pub id: MessageId,
}

/// What the large part of a slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LargePart {
    /// A message that is still owed.
    Message(Box<Message>),
    /// The message of this generation was settled; only its head has not been freed yet.
    Settled(Option<Memo>),
}

/// What a redelivery is, beside its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms<'a> {
    /// Its number: 1, 2, ...
    pub attempt: u16,
    /// The header with the idempotency key.
    pub key_header: &'a str,
    /// Which way it goes.
    pub road: Road<'a>,
    /// How long it may take.
    pub timeout: Millis,
}

/// Which way a redelivery goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Road<'a> {
    /// To the destination itself, in the form that `capture.as` chose.
    Straight {
        /// In place of the message's own.
        authority: Option<&'a str>,
    },
    /// Through a listener with the same routes, as it arrived: the routes do the rest.
    Through(Pass),
}

const KIND_MESSAGE: u8 = b'M';
const KIND_RECEIPT: u8 = b'R';
const FLAG_ROUTED: u8 = 1;
const FLAG_FINGERPRINT: u8 = 2;
const FLAG_LINE: u8 = 4;
/// The number of hops follows; without it, it is 1.
const FLAG_HOPS: u8 = 8;
/// Those that the first format does not have; a message of the extended one has at least one of them.
const FLAGS_LATER: u8 = FLAG_FINGERPRINT | FLAG_LINE | FLAG_HOPS;

impl Message {
    /// The form that a redelivery to the destination itself sends.
    #[must_use]
    pub fn outgoing(&self) -> &Envelope {
        self.routed.as_ref().unwrap_or(&self.arrived)
    }

    /// What is remembered of it when it was delivered.
    #[must_use]
    pub fn memo(&self) -> Option<Memo> {
        self.ties.fingerprint.map(|fingerprint| Memo { fingerprint, id: self.id })
    }

    fn flags(&self) -> u8 {
        let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
        flag(self.routed.is_some(), FLAG_ROUTED)
            | flag(self.ties.fingerprint.is_some(), FLAG_FINGERPRINT)
            | flag(self.ties.line.is_some(), FLAG_LINE)
            | flag(self.hops != Hops::FIRST, FLAG_HOPS)
    }

    /// The cell for `slot`.
    #[must_use]
    pub fn encode(&self, slot: SlotIndex, generation: Generation) -> Vec<u8> {
        let headers = self.arrived.byte_count().saturating_mul(if self.routed.is_some() { 2 } else { 1 });
        let capacity = headers.saturating_add(self.body.len()).saturating_add(128);
        let mut writer = Writer::of(KIND_MESSAGE, Format::Compact, capacity);
        writer.number(slot.0.into()).number(generation.0.into()).raw(&self.id.0).u8(self.flags());
        if self.hops != Hops::FIRST {
            writer.u8(self.hops.0);
        }
        if let Some(fingerprint) = &self.ties.fingerprint {
            write_fingerprint(&mut writer, fingerprint);
        }
        if let Some(line) = self.ties.line {
            writer.u64(line.0);
        }
        writer.string(self.cluster.0.as_bytes());
        write_envelope(&mut writer, &self.arrived);
        if let Some(routed) = &self.routed {
            write_envelope(&mut writer, routed);
        }
        writer.string(&self.body);
        writer.finish()
    }

    /// What it speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        Protocol::of(self.outgoing().field("content-type"))
    }

    /// The request of one attempt.
    #[must_use]
    pub fn request(&self, terms: &Terms<'_>) -> HeaderList {
        let Terms { attempt, key_header, road, timeout } = terms;
        let (envelope, authority, pass) = match road {
            Road::Straight { authority } => (self.outgoing(), *authority, None),
            Road::Through(pass) => (&self.arrived, None, Some(pass)),
        };
        let protocol = Protocol::of(envelope.field("content-type"));
        let mut headers = envelope.fields.room(REQUEST_HEADERS_MORE);
        headers.extend([
            (&b":method"[..], &*envelope.method),
            (b":scheme", &envelope.scheme),
            (b":authority", authority.map_or(&envelope.authority, str::as_bytes)),
            (b":path", &envelope.path),
        ]);
        headers.extend(envelope.fields.iter().filter(|(name, _)| !is_renewed(protocol, name)));
        let deadline = deadline(*timeout);
        match protocol {
            Protocol::Http => {}
            Protocol::Grpc => headers.extend([(&b"te"[..], &b"trailers"[..]), (GRPC_TIMEOUT, deadline.as_bytes())]),
        }
        let (id, attempt, hops) = (hexadecimal(&self.id.0), attempt.to_string(), self.hops.0.to_string());
        let pass = pass.map(Pass::to_string);
        let ours = [(HEADER_ID, Some(&id)), (HEADER_ATTEMPT, Some(&attempt)), (HEADER_HOPS, Some(&hops))];
        let key = envelope.field(key_header).is_none().then_some(&id);
        for (name, value) in ours.into_iter().chain([(HEADER_PASS, pass.as_ref()), (*key_header, key)]) {
            headers.extend(value.map(|value| (name.as_bytes(), value.as_bytes())));
        }
        HeaderList::of(&headers)
    }
}

const GRPC_TIMEOUT: &[u8] = b"grpc-timeout";
/// Headers that a redelivery has beside the message's own: four of the request line, two of a call, and five of ours.
const REQUEST_HEADERS_MORE: usize = 4 + 2 + 5;

/// Whether a redelivery has its own value of a header. The sender's deadline spanned its own attempt.
fn is_renewed(protocol: Protocol, name: &[u8]) -> bool {
    match protocol {
        Protocol::Http => false,
        Protocol::Grpc => name == GRPC_TIMEOUT,
    }
}

/// The cell that takes the place of a settled message.
#[must_use]
pub fn encode_receipt(generation: Generation, memo: Option<&Memo>) -> Vec<u8> {
    let format = if memo.is_some() { Format::Extended } else { Format::First };
    let mut writer = Writer::of(KIND_RECEIPT, format, 52);
    writer.u32(generation.0);
    if let Some(memo) = memo {
        write_fingerprint(&mut writer, &memo.fingerprint);
        writer.raw(&memo.id.0);
    }
    writer.finish()
}

/// Reads the large part of `slot`, which must be of `generation`.
///
/// # Errors
/// What is wrong with the bytes; [`Damage::Field`] also when they belong to another slot or generation.
pub fn decode(bytes: &[u8], slot: SlotIndex, generation: Generation) -> Result<LargePart, Damage> {
    if bytes.first() == Some(&KIND_RECEIPT) {
        return decode_receipt(bytes, generation);
    }
    let (mut reader, format) = Reader::open_any(bytes, KIND_MESSAGE, Seal::NONE)?;
    if (reader.word()?, reader.word()?) != (slot.0, generation.0) {
        return Err(Damage::Field);
    }
    let id = MessageId(reader.raw()?);
    let flags = read_flags(&mut reader, format)?;
    let hops = if flags & FLAG_HOPS == 0 { Hops::FIRST } else { Hops(reader.u8()?) };
    if flags & FLAG_HOPS != 0 && hops == Hops::FIRST {
        return Err(Damage::Field);
    }
    let ties = Ties {
        fingerprint: if flags & FLAG_FINGERPRINT == 0 { None } else { Some(read_fingerprint(&mut reader)?) },
        line: if flags & FLAG_LINE == 0 { None } else { Some(LineKey(reader.u64()?)) },
    };
    let cluster = ClusterName(std::str::from_utf8(reader.string()?).map_err(|_| Damage::Field)?.to_owned());
    let arrived = read_envelope(&mut reader)?;
    let routed = if flags & FLAG_ROUTED == 0 { None } else { Some(read_envelope(&mut reader)?) };
    let body = reader.string()?.to_vec();
    reader.close()?;
    let message = Message { id, hops, cluster, arrived, routed, body, ties };
    for form in [&message.arrived].into_iter().chain(&message.routed) {
        form.check().map_err(|_| Damage::Field)?;
    }
    Ok(LargePart::Message(Box::new(message)))
}

fn decode_receipt(bytes: &[u8], generation: Generation) -> Result<LargePart, Damage> {
    let (mut reader, format) = Reader::open_any(bytes, KIND_RECEIPT, Seal::NONE)?;
    let found = Generation(reader.u32()?);
    let memo = match format {
        Format::First => None,
        Format::Extended => Some(Memo { fingerprint: read_fingerprint(&mut reader)?, id: MessageId(reader.raw()?) }),
        Format::Compact => return Err(Damage::Version),
    };
    reader.close()?;
    if found == generation { Ok(LargePart::Settled(memo)) } else { Err(Damage::Field) }
}

/// The flags, if a cell of this format can have them.
fn read_flags(reader: &mut Reader<'_>, format: Format) -> Result<u8, Damage> {
    let flags = reader.u8()?;
    let is_right = match format {
        Format::First => flags & !FLAG_ROUTED == 0,
        Format::Extended => flags & FLAGS_LATER != 0 && flags & !(FLAG_ROUTED | FLAGS_LATER) == 0,
        Format::Compact => flags & !(FLAG_ROUTED | FLAGS_LATER) == 0,
    };
    if is_right { Ok(flags) } else { Err(Damage::Field) }
}

fn write_fingerprint(writer: &mut Writer, fingerprint: &Fingerprint) {
    writer.raw(&fingerprint.identity.0).raw(&fingerprint.content.0);
}

fn read_fingerprint(reader: &mut Reader<'_>) -> Result<Fingerprint, Damage> {
    Ok(Fingerprint { identity: Identity(reader.raw()?), content: Content(reader.raw()?) })
}

fn write_envelope(writer: &mut Writer, envelope: &Envelope) {
    writer.string(&envelope.method).string(&envelope.scheme).string(&envelope.authority).string(&envelope.path);
    writer.number(u64::try_from(envelope.fields.iter().count()).unwrap_or(u64::MAX));
    for (name, value) in &envelope.fields {
        writer.string(name).string(value);
    }
}

fn read_envelope(reader: &mut Reader<'_>) -> Result<Envelope, Damage> {
    let mut next = || reader.string().map(<[u8]>::to_vec);
    let (method, scheme, authority, path) = (next()?, next()?, next()?, next()?);
    let count = reader.short()?;
    // A count that no message has asks for no memory; its first missing field ends it.
    let mut fields = Vec::with_capacity(usize::from(count).min(FIELDS_MAX));
    for _ in 0..count {
        fields.push((reader.string()?, reader.string()?));
    }
    Ok(Envelope { method, scheme, authority, path, fields: HeaderList::of(&fields) })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::codec::FORMAT_COMPACT;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const SLOT: SlotIndex = SlotIndex(3);
    const GENERATION: Generation = Generation(8);

    pub(crate) fn message(path: &str) -> Message {
        let fields = HeaderList::of(&[(b"x", b"\xff"), (b"x", b"2")]);
        let envelope = |path: &str| Envelope {
            method: b"POST".to_vec(),
            scheme: b"http".to_vec(),
            authority: b"orders".to_vec(),
            path: path.as_bytes().to_vec(),
            fields: fields.clone(),
        };
        Message {
            id: MessageId([7; 16]),
            hops: Hops::FIRST,
            cluster: ClusterName("orders".to_owned()),
            arrived: envelope("/in"),
            routed: Some(envelope(path)),
            body: b"\0body".to_vec(),
            ties: Ties::default(),
        }
    }

    fn straight(attempt: u16, authority: Option<&str>) -> Terms<'_> {
        Terms { attempt, key_header: "idempotency-key", road: Road::Straight { authority }, timeout: Millis(15_000) }
    }

    #[test]
    fn a_redelivered_call_has_a_deadline_of_its_own() {
        let mut message = message("/out");
        let fields = |message: &mut Message, fields: &[_]| {
            message.routed.as_mut().unwrap().fields = HeaderList::of(fields);
        };
        fields(&mut message, &[(b"grpc-timeout", b"1S")]);
        assert_eq!(message.request(&straight(1, None)).first("grpc-timeout"), Some(&b"1S"[..]), "no call, no deadline");
        fields(&mut message, &[(b"grpc-timeout", b"1S"), (b"content-type", b"application/grpc+proto")]);
        let headers = message.request(&straight(1, None));
        assert_eq!(headers.all("grpc-timeout").collect::<Vec<_>>(), [b"15000m"]);
        assert_eq!(headers.first("te"), Some(&b"trailers"[..]));
    }

    #[test]
    fn through_a_listener_goes_what_arrived_with_a_pass() {
        let pass = Pass([0xab; 16]);
        let terms = Terms { road: Road::Through(pass), ..straight(1, None) };
        let headers = message("/out").request(&terms);
        assert_eq!(headers.first(":path"), Some(&b"/in"[..]));
        assert_eq!(headers.first(HEADER_PASS), Some("ab".repeat(16).as_bytes()));
        assert_eq!(message("/out").request(&straight(1, None)).first(HEADER_PASS), None);
    }

    pub(crate) fn fingerprint(number: u8) -> Fingerprint {
        Fingerprint { identity: Identity([number; 16]), content: Content([number.wrapping_add(1); 16]) }
    }

    #[test]
    fn a_message_reads_back_as_written_with_and_without_a_routed_form() {
        let both = message("/out");
        let one = Message { routed: None, ..both.clone() };
        let tied = |fingerprint, line| Message { ties: Ties { fingerprint, line }, ..both.clone() };
        let keyed = tied(Some(fingerprint(4)), None);
        let ordered = tied(None, Some(LineKey(9)));
        let all = tied(Some(fingerprint(4)), Some(LineKey(9)));
        let third = Message { hops: Hops(3), ..both.clone() };
        let third_keyed = Message { hops: Hops(3), ..keyed.clone() };
        for message in [both, one, keyed, ordered, all, third, third_keyed] {
            let bytes = message.encode(SLOT, GENERATION);
            assert_eq!(decode(&bytes, SLOT, GENERATION), Ok(LargePart::Message(Box::new(message))));
        }
    }

    #[test]
    fn a_value_under_another_key_or_of_another_generation_is_found() {
        let bytes = message("/out").encode(SLOT, GENERATION);
        assert_eq!(decode(&bytes, SlotIndex(4), GENERATION), Err(Damage::Field));
        assert_eq!(decode(&bytes, SLOT, Generation(9)), Err(Damage::Field));
        let memo = Memo { fingerprint: fingerprint(3), id: MessageId([7; 16]) };
        for memo in [None, Some(memo)] {
            let receipt = |generation| encode_receipt(generation, memo.as_ref());
            assert_eq!(decode(&receipt(GENERATION), SLOT, GENERATION), Ok(LargePart::Settled(memo)));
            assert_eq!(decode(&receipt(Generation(7)), SLOT, GENERATION), Err(Damage::Field));
        }
    }

    #[test]
    fn a_message_takes_few_bytes_beside_its_own() {
        let small = Message { routed: None, ..message("/out") };
        let own = b"POSThttporders/inx\xffx2\0body".len();
        let framing = small.encode(SLOT, GENERATION).len() - own;
        // Header and checksum, slot, generation, id, flags, cluster; a length for each text and a count.
        assert_eq!(framing, 6 + 1 + 1 + 16 + 1 + (1 + "orders".len()) + 4 + 1 + 2 * 2 + 1);
    }

    #[test]
    fn a_message_that_says_what_its_format_does_not_have_is_not_guessed_at() {
        const FLAGS_AT: usize = 6 + 1 + 1 + 16;
        let sealed = |mut bytes: Vec<u8>| {
            let checksum = crate::codec::crc32(&bytes[6..]).to_le_bytes();
            bytes[2..6].copy_from_slice(&checksum);
            bytes
        };
        for flag in [16, 32, 64, 128] {
            let mut bytes = message("/out").encode(SLOT, GENERATION);
            bytes[FLAGS_AT] |= flag;
            assert_eq!(decode(&sealed(bytes), SLOT, GENERATION), Err(Damage::Field), "flag {flag}");
        }
        let mut bytes = Message { hops: Hops(3), ..message("/out") }.encode(SLOT, GENERATION);
        bytes[FLAGS_AT + 1] = 1;
        assert_eq!(decode(&sealed(bytes), SLOT, GENERATION), Err(Damage::Field), "the first hop is not written");
        let mut receipt = encode_receipt(GENERATION, None);
        receipt[1] = FORMAT_COMPACT;
        assert_eq!(decode(&receipt, SLOT, GENERATION), Err(Damage::Version), "receipts have no such format");
    }

    /// A message as it was written before there was a compact format.
    fn fixed(format: Format, flags: u8, message: &Message) -> Vec<u8> {
        let mut writer = Writer::of(KIND_MESSAGE, format, 0);
        writer.u32(SLOT.0).u32(GENERATION.0).raw(&message.id.0).u8(flags);
        if message.hops != Hops::FIRST {
            writer.u8(message.hops.0);
        }
        if let Some(fingerprint) = &message.ties.fingerprint {
            write_fingerprint(&mut writer, fingerprint);
        }
        if let Some(line) = message.ties.line {
            writer.u64(line.0);
        }
        writer.string(message.cluster.0.as_bytes());
        for envelope in [Some(&message.arrived), message.routed.as_ref()].into_iter().flatten() {
            writer.string(&envelope.method).string(&envelope.scheme).string(&envelope.authority).string(&envelope.path);
            writer.u16(envelope.fields.iter().count() as u16);
            for (name, value) in &envelope.fields {
                writer.string(name).string(value);
            }
        }
        writer.string(&message.body);
        writer.finish()
    }

    #[test]
    fn messages_of_the_formats_before_are_read() {
        let both = message("/out");
        let one = Message { routed: None, ..both.clone() };
        let keyed = Message { ties: Ties { fingerprint: Some(fingerprint(4)), line: None }, ..both.clone() };
        let third = Message { hops: Hops(3), ties: Ties { line: Some(LineKey(9)), ..keyed.ties }, ..one.clone() };
        for (format, message) in
            [(Format::First, both), (Format::First, one), (Format::Extended, keyed), (Format::Extended, third)]
        {
            let bytes = fixed(format, message.flags(), &message);
            assert_eq!(decode(&bytes, SLOT, GENERATION), Ok(LargePart::Message(Box::new(message))), "{format:?}");
            assert_eq!(decode(&bytes, SlotIndex(4), GENERATION), Err(Damage::Field));
            assert_eq!(decode(&bytes, SLOT, Generation(9)), Err(Damage::Field));
        }
    }

    #[test]
    fn a_message_with_a_flag_that_its_format_before_did_not_have_is_not_guessed_at() {
        let keyed = Message { ties: Ties { fingerprint: Some(fingerprint(4)), line: None }, ..message("/out") };
        for (format, message, flag) in [
            (Format::First, message("/out"), 2),
            (Format::First, message("/out"), 4),
            (Format::First, message("/out"), 8),
            (Format::Extended, message("/out"), 0),
            (Format::Extended, keyed, 16),
        ] {
            let bytes = fixed(format, message.flags() | flag, &message);
            assert_eq!(decode(&bytes, SLOT, GENERATION), Err(Damage::Field), "{format:?}, flag {flag}");
        }
    }

    #[test]
    fn cells_of_the_first_build_are_read() {
        let mut first = b"M\x01....\x03\0\0\0\x08\0\0\0".to_vec();
        first.extend_from_slice(&[7; 16]);
        first.extend_from_slice(b"\0\x06\0\0\0orders\x04\0\0\0POST\x04\0\0\0http\x06\0\0\0orders");
        first.extend_from_slice(b"\x03\0\0\0/in\x01\0\x01\0\0\0x\x01\0\0\0\xff\x02\0\0\0ab");
        let mut receipt = b"R\x01....\x08\0\0\0".to_vec();
        for cell in [&mut first, &mut receipt] {
            let checksum = crate::codec::crc32(&cell[6..]).to_le_bytes();
            cell[2..6].copy_from_slice(&checksum);
        }
        let fields = HeaderList::of(&[(b"x", b"\xff")]);
        let arrived = Envelope { fields, ..message("/out").arrived };
        let expected = Message { arrived, routed: None, body: b"ab".to_vec(), ..message("/out") };
        assert_eq!(decode(&first, SLOT, GENERATION), Ok(LargePart::Message(Box::new(expected))));
        assert_eq!(encode_receipt(GENERATION, None), receipt, "written as before");
        assert_eq!(decode(&receipt, SLOT, GENERATION), Ok(LargePart::Settled(None)));
    }

    #[test]
    fn a_message_that_could_split_a_request_line_never_leaves() {
        let bytes = message("/a HTTP/1.1\r\nx: y").encode(SLOT, GENERATION);
        assert_eq!(decode(&bytes, SLOT, GENERATION), Err(Damage::Field));
    }

    #[test]
    fn a_redelivery_carries_the_routed_form_and_our_headers() {
        let headers = message("/out").request(&straight(2, Some("other")));
        assert_eq!(headers.first(":path"), Some(&b"/out"[..]));
        assert_eq!(headers.first(":authority"), Some(&b"other"[..]));
        assert_eq!(headers.first(HEADER_ATTEMPT), Some(&b"2"[..]));
        assert_eq!(headers.first("idempotency-key"), headers.first(HEADER_ID));
        assert_eq!(headers.all("x").count(), 2);
    }

    #[test]
    fn the_senders_own_key_is_kept() {
        let mut message = message("/out");
        message.routed.as_mut().unwrap().fields = HeaderList::of(&[(b"idempotency-key", b"k1")]);
        let headers = message.request(&straight(1, None));
        assert_eq!(headers.all("idempotency-key").collect::<Vec<_>>(), [b"k1"]);
    }
}
