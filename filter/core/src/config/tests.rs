//! What an operator can write, and what is said to each mistake: the cases are tables, and `check` alone knows the API.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Configuration text beside the lines that it is refused with.
type Case = (&'static str, &'static [&'static str]);

fn check(cases: &[Case]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(text, expected)| {
            let said = parse(text.as_bytes()).map_or_else(|faults| faults.to_string(), |_| "accepted".to_owned());
            let wanted = expected.join("\n");
            (said != wanted).then(|| format!("\n--- {text}\nwanted:\n{wanted}\nsaid:\n{said}\n"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

fn accepted(text: &str) -> Config {
    parse(text.as_bytes()).unwrap_or_else(|faults| panic!("{text}\n{faults}"))
}

#[test]
fn text_that_is_no_json_object_is_refused_as_a_whole() {
    check(&[
        (
            "match: {}",
            &[
                "configuration: must be a JSON object that starts with {: use StringValue, not Struct, and JSON, not YAML",
            ],
        ),
        ("[1]", &["configuration: must be a JSON object, found a list"]),
        ("\"{}\"", &["configuration: must be a JSON object, found a string"]),
        ("null", &["configuration: must be a JSON object, found null"]),
        ("17", &["configuration: must be a JSON object, found a number"]),
        ("{\"reply\": ", &["configuration: is not JSON: EOF while parsing a value at line 1 column 10"]),
        ("{} {}", &["configuration: is not JSON: trailing characters at line 1 column 4"]),
        ("{\"reply\": NaN}", &["configuration: is not JSON: expected value at line 1 column 11"]),
        (
            "{\"store\": {\"max_messages\": 1e400}}",
            &["configuration: is not JSON: number out of range at line 1 column 32"],
        ),
        ("\n{\u{5}match\u{12}", &["configuration: is raw protobuf, not JSON text: use StringValue, not Struct"]),
    ]);
}

#[test]
fn a_struct_is_recognised_by_its_protobuf_bytes() {
    // google.protobuf.Struct {fields: {"reply": "accepted"}}, then the same behind lengths that look like JSON text.
    let entry = b"\x0a\x05reply\x12\x0a\x1a\x08accepted";
    for length in [entry.len() as u8, b'{', b' ', 0x80] {
        let bytes = [&[0x0a, length], entry.as_slice()].concat();
        let said = parse(&bytes).expect_err("raw protobuf").to_string();
        assert_eq!(said, "configuration: is raw protobuf, not JSON text: use StringValue, not Struct");
    }
}

#[test]
fn keys_that_do_not_exist_are_refused_with_the_nearest_that_does() {
    check(&[
        (r#"{"replay": "original"}"#, &["replay: unknown key, did you mean reply?"]),
        (r#"{"Match": {}}"#, &["Match: unknown key, did you mean match?"]),
        (r#"{"match": {"path_prefix": []}}"#, &["match.path_prefix: unknown key, did you mean match.path_prefixes?"]),
        (r#"{"match": {"pathPrefixes": []}}"#, &["match.pathPrefixes: unknown key, did you mean match.path_prefixes?"]),
        (r#"{"path_prefixes": []}"#, &["path_prefixes: unknown key, did you mean match.path_prefixes?"]),
        (
            r#"{"redelivery": {"max_messages": 5}}"#,
            &["redelivery.max_messages: unknown key, did you mean store.max_messages?"],
        ),
        (
            r#"{"redelivery": {"backoff": {"maxx": "1s"}}}"#,
            &["redelivery.backoff.maxx: unknown key, did you mean redelivery.backoff.max?"],
        ),
        (r#"{"colour": 1}"#, &["colour: unknown key"]),
        (r#"{"": {"reply": "original"}}"#, &["\"\": unknown key"]),
        (r#"{"authority": "a"}"#, &["authority: unknown key, did you mean destinations.<cluster>.authority?"]),
        (r#"{"a\nb: fine": 1}"#, &["a\\nb: fine: unknown key"]),
        (r#"{"store.ttl": "1h"}"#, &["store.ttl: unknown key: keys are nested objects, not joined by dots"]),
        (r#"{"operator": {"prefix": "/"}}"#, &["operator.prefix: unknown key"]),
        (
            r#"{"destinations": {"a": {"authorty": "b"}}}"#,
            &["destinations.a.authorty: unknown key, did you mean destinations.a.authority?"],
        ),
        (
            r#"{"destinations": {"a": {"failure": {"status": []}}}}"#,
            &["destinations.a.failure.status: unknown key, did you mean destinations.a.failure.statuses?"],
        ),
        (r#"{"destinations": {"a": {"<cluster>": 1}}}"#, &["destinations.a.<cluster>: unknown key"]),
        (r#"{"destinations": {"a": {"match": {}}}}"#, &["destinations.a.match: unknown key"]),
    ]);
}

#[test]
fn a_key_given_twice_is_refused_at_every_depth() {
    check(&[
        (r#"{"reply": "accepted", "reply": "original"}"#, &["reply: is given twice"]),
        (r#"{"store": {"ttl": "1h", "ttl": "1h"}}"#, &["store.ttl: is given twice"]),
        (r#"{"match": {}, "match": {"methods": ["POST"]}}"#, &["match: is given twice"]),
        (r#"{"destinations": {"a": {}, "a": {}}}"#, &["destinations.a: is given twice"]),
    ]);
}

#[test]
fn keys_of_areas_not_built_are_refused_one_by_one() {
    check(&[
        (r#"{"metrics": {"labels": "none"}}"#, &["metrics.labels: not in this build"]),
        (
            r#"{"metrics": {"labels": "none"}, "receipts": false}"#,
            &["metrics.labels: not in this build", "receipts: not in this build"],
        ),
        (r#"{"operator": {}}"#, &["operator: not in this build"]),
        (r#"{"operator": null}"#, &["operator: not in this build"]),
        (
            r#"{"operator": {"path_prefix": "/_redeliver", "token_sha256": 5}}"#,
            &["operator.path_prefix: not in this build", "operator.token_sha256: not in this build"],
        ),
        (r#"{"durable": {"etcd": {"cluster": "etcd"}}}"#, &["durable.etcd.cluster: not in this build"]),
        (r#"{"durable": {"etcd": {}}}"#, &["durable.etcd: not in this build"]),
        (
            r#"{"destinations": {"a": {"redelivery": {"order": "none", "through": "b"}}}, "receipts": true}"#,
            &["receipts: not in this build"],
        ),
    ]);
}

#[test]
fn every_key_of_an_area_not_built_is_refused_even_with_its_default() {
    let later = table::rows().into_iter().filter(|row| row.area != table::Area::Filter).collect::<Vec<_>>();
    assert_eq!(later.len(), 7, "the contract has 7 of them until the next area is built");
    for row in later {
        let path = row.path.replace("<cluster>", "a");
        let text = path.rsplit('.').fold(row.default.to_owned(), |inner, key| format!("{{\"{key}\": {inner}}}"));
        let said = parse(text.as_bytes()).map_or_else(|faults| faults.to_string(), |_| "accepted".to_owned());
        assert_eq!(said, format!("{path}: not in this build"), "{text}");
    }
}

#[test]
fn a_fault_in_a_destinations_own_key_has_the_full_path_and_the_words_of_the_shared_one() {
    check(&[
        (
            r#"{"destinations": {"orders": {"redelivery": {"backoff": {"max": "0s"}}}}}"#,
            &["destinations.orders.redelivery.backoff.max: 0s is below initial 1s"],
        ),
        (
            r#"{"redelivery": {"backoff": {"max": "5s"}},
                "destinations": {"orders": {"redelivery": {"backoff": {"initial": "9s"}}}, "b": {}}}"#,
            &["destinations.orders.redelivery.backoff.max: 5s is below initial 9s"],
        ),
        // A contradiction of the shared keys is told once, whoever inherits it.
        (
            r#"{"redelivery": {"backoff": {"max": "0s"}}, "destinations": {"a": {}, "b": {"store": {"ttl": "1h"}}}}"#,
            &["redelivery.backoff.max: 0s is below initial 1s"],
        ),
        (
            r#"{"destinations": {"a": {"hold_while_down": true, "store": {"max_messages": 0, "ttl": 5}, "failure": 5,
                "health": {"source": "health_check_filter", "path": "/x"}, "redelivery": {"rate": -1}}}}"#,
            &[
                "destinations.a.failure: must be an object, found a number",
                "destinations.a.store.max_messages: 0 is below 1",
                "destinations.a.store.ttl: must be a duration such as \"10s\", found a number",
                "destinations.a.redelivery.rate: must be a number from 0.0 to 1000000.0",
                "destinations.a.hold_while_down: true needs capture.as: arrived",
                "destinations.a.health.path: \"/x\" must contain {cluster} with health.source: health_check_filter",
            ],
        ),
        (
            r#"{"destinations": {"a": {"hold_while_down": {}, "store": {"ttl": "1h", "ttl": "2h"}, "store": {}}}}"#,
            &[
                "destinations.a.store.ttl: is given twice",
                "destinations.a.store: is given twice",
                "destinations.a.hold_while_down: must be true or false, found an object",
            ],
        ),
    ]);
}

#[test]
fn a_destinations_own_keys_lie_over_the_shared_ones() {
    let config = accepted(
        r#"{"capture": {"as": "arrived"}, "failure": {"statuses": [500, 503]}, "store": {"max_messages": 100},
            "redelivery": {"timeout": "9s", "window": {"initial": 2}},
            "destinations": {
                "a": {"failure": {"statuses": [429]}, "hold_while_down": true, "store": {"max_messages": 5, "accept": false},
                      "health": {"source": "admin", "interval": "7s"},
                      "redelivery": {"tick": "50ms", "rate": 3, "backoff": {"initial": "2s"}, "window": {"max": 8}}},
                "b": {}}}"#,
    );
    let cluster = |name: &str| ClusterName(name.to_owned());
    let shared = config.shared.as_ref().clone();
    assert_eq!(config.of(&cluster("b")).as_ref(), &shared);
    assert_eq!(config.of(&cluster("never named")).as_ref(), &shared);
    let expected = Policy {
        failure: Failure { statuses: vec![429], ..shared.failure },
        hold_while_down: HoldWhileDown::On,
        store: StoreLimits { messages_max: 5, intake: Intake::Closed, ..shared.store },
        health: Health { source: HealthSource::Admin, interval: Millis(7_000), ..shared.health },
        redelivery: Redelivery {
            tick: Millis(50),
            rate: Rate::PerSecond(Permille(3_000)),
            backoff: Backoff { initial: Millis(2_000), ..shared.redelivery.backoff },
            window: Window { initial: 2, max: 8 },
            ..shared.redelivery
        },
    };
    assert_eq!(config.of(&cluster("a")).as_ref(), &expected);
    assert_eq!(config.tick(), Millis(50), "the one timer runs at the shortest");
}

#[test]
fn values_of_another_type_are_refused() {
    check(&[
        (r#"{"match": []}"#, &["match: must be an object, found a list"]),
        (r#"{"match": null}"#, &["match: must be an object, found null"]),
        (r#"{"redelivery": {"window": 5}}"#, &["redelivery.window: must be an object, found a number"]),
        (r#"{"destinations": ["a"]}"#, &["destinations: must be an object, found a list"]),
        (r#"{"destinations": {"a": "b"}}"#, &["destinations.a: must be an object, found a string"]),
        (r#"{"match": {"methods": "POST"}}"#, &["match.methods: must be a list, found a string"]),
        (
            r#"{"match": {"clusters": ["a", 5, null]}}"#,
            &["match.clusters[1]: must be a string, found a number", "match.clusters[2]: must be a string, found null"],
        ),
        (r#"{"match": {"route_opt_in": "yes"}}"#, &["match.route_opt_in: must be true or false, found a string"]),
        (r#"{"reply": false}"#, &["reply: must be a string, found a boolean"]),
        (r#"{"store": {"ttl": 3600}}"#, &["store.ttl: must be a duration such as \"10s\", found a number"]),
        (r#"{"store": {"max_messages": "10"}}"#, &["store.max_messages: must be a whole number, found a string"]),
        (
            r#"{"store": {"max_bytes": true}}"#,
            &["store.max_bytes: must be a size such as \"256KiB\" or a number of bytes, found a boolean"],
        ),
        (
            r#"{"redelivery": {"backoff": {"jitter": "0.2"}}}"#,
            &["redelivery.backoff.jitter: must be a number, found a string"],
        ),
    ]);
}

#[test]
fn durations_and_sizes_are_whole_numbers_with_a_unit() {
    check(&[
        (r#"{"store": {"ttl": "10"}}"#, &["store.ttl: \"10\" has no unit: write one of ms, s, m, h"]),
        (r#"{"store": {"ttl": "7d"}}"#, &["store.ttl: unit \"d\" is unknown: write one of ms, s, m, h"]),
        (r#"{"store": {"ttl": "1.5h"}}"#, &["store.ttl: \"1.5h\" has decimals: write whole numbers in a smaller unit"]),
        (r#"{"store": {"ttl": ""}}"#, &["store.ttl: \"\" is not a duration such as \"10s\" or \"1h30m\""]),
        (r#"{"store": {"ttl": "-5s"}}"#, &["store.ttl: \"-5s\" is not a duration such as \"10s\" or \"1h30m\""]),
        (r#"{"store": {"ttl": "soon"}}"#, &["store.ttl: \"soon\" is not a duration such as \"10s\" or \"1h30m\""]),
        (r#"{"store": {"ttl": "30m1h"}}"#, &["store.ttl: \"30m1h\" must name each unit once, the largest first"]),
        (r#"{"store": {"ttl": "1s1s"}}"#, &["store.ttl: \"1s1s\" must name each unit once, the largest first"]),
        (r#"{"store": {"ttl": "1h30"}}"#, &["store.ttl: \"1h30\" has no unit: write one of ms, s, m, h"]),
        (
            r#"{"store": {"ttl": "99999999999999999999h"}}"#,
            &["store.ttl: 99999999999999999999h is above 18446744073709551615ms"],
        ),
        (
            r#"{"capture": {"max_body": "64KB"}}"#,
            &["capture.max_body: unit \"KB\" is unknown: write one of B, KiB, MiB, GiB"],
        ),
        (
            r#"{"capture": {"max_body": "1024"}}"#,
            &["capture.max_body: \"1024\" has no unit: write one of B, KiB, MiB, GiB"],
        ),
        (
            r#"{"capture": {"max_body": "0.5MiB"}}"#,
            &["capture.max_body: \"0.5MiB\" has decimals: write whole numbers in a smaller unit"],
        ),
        (
            r#"{"capture": {"max_body": "1MiB1KiB"}}"#,
            &["capture.max_body: \"1MiB1KiB\" is not a size such as \"256KiB\" or a number of bytes"],
        ),
        (
            r#"{"capture": {"max_body": 1.5}}"#,
            &["capture.max_body: must be a whole number below 2^64, without decimals or an exponent"],
        ),
        (r#"{"capture": {"max_body": -1}}"#, &["capture.max_body: -1 is below 0B"]),
    ]);
}

#[test]
fn values_out_of_range_are_refused_with_the_bound() {
    check(&[
        (r#"{"redelivery": {"timeout": "0s"}}"#, &["redelivery.timeout: 0s is below 1ms"]),
        (r#"{"redelivery": {"timeout": "2147483648ms"}}"#, &["redelivery.timeout: 2147483648ms is above 2147483647ms"]),
        (r#"{"redelivery": {"tick": "0ms"}}"#, &["redelivery.tick: 0s is below 1ms"]),
        (r#"{"redelivery": {"tick": "1m"}}"#, &["redelivery.tick: 1m is above 1s"]),
        (r#"{"redelivery": {"max_attempts": 0}}"#, &["redelivery.max_attempts: 0 is below 1"]),
        (r#"{"redelivery": {"max_attempts": -1}}"#, &["redelivery.max_attempts: -1 is below 1"]),
        (
            r#"{"redelivery": {"max_attempts": 2.5}}"#,
            &["redelivery.max_attempts: must be a whole number below 2^64, without decimals or an exponent"],
        ),
        (
            r#"{"redelivery": {"window": {"initial": 0, "max": 100000}}}"#,
            &["redelivery.window.initial: 0 is below 1", "redelivery.window.max: 100000 is above 1024"],
        ),
        (
            r#"{"redelivery": {"backoff": {"multiplier": 0.5, "jitter": 1.001}}}"#,
            &[
                "redelivery.backoff.multiplier: must be a number from 1.0 to 100.0",
                "redelivery.backoff.jitter: must be a number from 0.0 to 1.0",
            ],
        ),
        (
            r#"{"redelivery": {"backoff": {"multiplier": 1e300, "jitter": -0.1}}}"#,
            &[
                "redelivery.backoff.multiplier: must be a number from 1.0 to 100.0",
                "redelivery.backoff.jitter: must be a number from 0.0 to 1.0",
            ],
        ),
        (r#"{"redelivery": {"rate": -1}}"#, &["redelivery.rate: must be a number from 0.0 to 1000000.0"]),
        (
            r#"{"redelivery": {"backoff": {"jitter": 0.1234}}}"#,
            &["redelivery.backoff.jitter: must have at most three decimals"],
        ),
        (
            r#"{"capture": {"max_body": 0, "max_hold": "0s"}}"#,
            &["capture.max_body: 0B is below 1B", "capture.max_hold: 0s is below 1ms"],
        ),
        (r#"{"capture": {"max_body": "1GiB"}}"#, &["capture.max_body: 1GiB is above 64MiB"]),
        (
            r#"{"store": {"max_messages": 0, "max_bytes": "65GiB", "ttl": "0s"}}"#,
            &[
                "store.max_messages: 0 is below 1",
                "store.max_bytes: 65GiB is above 64GiB",
                "store.ttl: 0s is below 1ms",
            ],
        ),
        (
            r#"{"store": {"max_messages": 18446744073709551615}}"#,
            &["store.max_messages: 18446744073709551615 is above 1000000"],
        ),
        (
            r#"{"failure": {"statuses": [503, 200, 600], "grpc_statuses": [0, 17]}}"#,
            &[
                "failure.statuses[1]: 200 is below 400",
                "failure.statuses[2]: 600 is above 599",
                "failure.grpc_statuses[0]: 0 is below 1",
                "failure.grpc_statuses[1]: 17 is above 16",
            ],
        ),
        (
            r#"{"health": {"min_healthy_percent": 101, "interval": "1ms"}}"#,
            &["health.interval: 1ms is below 10ms", "health.min_healthy_percent: 101 is above 100"],
        ),
    ]);
}

#[test]
fn words_and_names_obey_the_rules_of_their_kind() {
    check(&[
        (r#"{"capture": {"mode": "hodl"}}"#, &["capture.mode: must be one of hold, stream, found \"hodl\""]),
        (
            r#"{"health": {"source": "Passive"}}"#,
            &["health.source: must be one of health_check_filter, admin, passive, found \"Passive\""],
        ),
        (r#"{"match": {"methods": []}}"#, &["match.methods: must name at least one method"]),
        (
            r#"{"match": {"methods": ["post", "CONNECT", "A B", ""]}}"#,
            &[
                "match.methods[0]: \"post\" must be in upper case",
                "match.methods[1]: \"CONNECT\" must be another method: a tunnel cannot be stored",
                "match.methods[2]: \"A B\" must be an HTTP method",
                "match.methods[3]: \"\" must be an HTTP method",
            ],
        ),
        (
            r#"{"match": {"path_prefixes": ["orders", "/a b", "/a?b", "/é"]}}"#,
            &[
                "match.path_prefixes[0]: \"orders\" must start with /",
                "match.path_prefixes[1]: \"/a b\" must consist of visible ASCII characters, others percent-encoded",
                "match.path_prefixes[2]: \"/a?b\" must be a path, without ? or #",
                "match.path_prefixes[3]: \"/é\" must consist of visible ASCII characters, others percent-encoded",
            ],
        ),
        (
            r#"{"match": {"clusters": ["", "a\u0000b"]}}"#,
            &[
                "match.clusters[0]: \"\" must be the name of a cluster",
                "match.clusters[1]: \"a\\u{0}b\" must have no control characters",
            ],
        ),
        (
            r#"{"capture": {"drop_headers": [":path", "a b", "naïve"]}}"#,
            &[
                "capture.drop_headers[0]: \":path\" must be a header, not a pseudo-header",
                "capture.drop_headers[1]: \"a b\" must be a header name",
                "capture.drop_headers[2]: \"naïve\" must be a header name",
            ],
        ),
        (
            r#"{"health": {"cluster": "", "path": "{cluster}"}}"#,
            &["health.cluster: \"\" must be the name of a cluster", "health.path: \"{cluster}\" must start with /"],
        ),
        (
            r#"{"destinations": {"": {}, "a": {"authority": ""}, "b": {"authority": "http://c/"}}}"#,
            &[
                "destinations.\"\": \"\" must be the name of a cluster",
                "destinations.a.authority: \"\" must be a host, or host:port",
                "destinations.b.authority: \"http://c/\" must be a host, or host:port",
            ],
        ),
    ]);
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    check(&[
        (r#"{"redelivery": {"backoff": {"max": "0s"}}}"#, &["redelivery.backoff.max: 0s is below initial 1s"]),
        (r#"{"redelivery": {"backoff": {"initial": "10m"}}}"#, &["redelivery.backoff.max: 5m is below initial 10m"]),
        (r#"{"redelivery": {"window": {"initial": 10, "max": 2}}}"#, &["redelivery.window.initial: 10 is above max 2"]),
        (r#"{"hold_while_down": true}"#, &["hold_while_down: true needs capture.as: arrived"]),
        (r#"{"redelivery": {"order": "by_key"}}"#, &["redelivery.order: by_key needs capture.as: arrived"]),
        (
            r#"{"destinations": {"orders": {"redelivery": {"order": "by_key"}}}}"#,
            &["destinations.orders.redelivery.order: by_key needs capture.as: arrived"],
        ),
        (
            r#"{"idempotency": {"header": "X-Redeliver-Id"}}"#,
            &["idempotency.header: \"x-redeliver-id\" must be a header that a redelivery carries"],
        ),
        (
            r#"{"capture": {"drop_headers": ["cookie", "Host"]}}"#,
            &["capture.drop_headers: \"host\" must be neither host nor the idempotency key: a redelivery needs them"],
        ),
        (
            r#"{"capture": {"drop_headers": ["idempotency-key"]}}"#,
            &["capture.drop_headers: \"idempotency-key\" must be neither host nor the idempotency key: a redelivery \
                 needs them"],
        ),
        (
            r#"{"health": {"source": "health_check_filter", "path": "/healthy"}}"#,
            &["health.path: \"/healthy\" must contain {cluster} with health.source: health_check_filter"],
        ),
    ]);
}

#[test]
fn all_faults_are_reported_at_once() {
    check(&[(
        r#"{"tipe": 1, "store": {"ttl": "1d", "ttl": "2d"}, "reply": "maybe", "receipts": false,
            "redelivery": {"backoff": {"initial": "2s", "max": "1s"}}, "hold_while_down": true}"#,
        &[
            "tipe: unknown key",
            "store.ttl: is given twice",
            "receipts: not in this build",
            "reply: must be one of accepted, original, found \"maybe\"",
            "store.ttl: unit \"d\" is unknown: write one of ms, s, m, h",
            "hold_while_down: true needs capture.as: arrived",
            "redelivery.backoff.max: 1s is below initial 2s",
        ],
    )]);
}

#[test]
fn a_fault_stays_on_its_line_and_short() {
    let long = format!("{{\"reply\": \"\\n{}\", \"{}\": 1}}", "x".repeat(10_000), "k".repeat(10_000));
    let said = parse(long.as_bytes()).expect_err("two faults").to_string();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.len() < 400, "{} bytes: {said}", said.len());
}

/// One line of a configuration put a second line into the log: of a number beyond 64 bits all that came behind it was
/// repeated as it stood.
#[test]
fn a_duration_beyond_64_bits_stays_on_its_line_and_short() {
    check(&[(
        r#"{"store": {"ttl": "99999999999999999999h1\nreply: fine"}}"#,
        &[r"store.ttl: 99999999999999999999h1\nreply: fine is above 18446744073709551615ms"],
    )]);
    let long = format!("{{\"store\": {{\"ttl\": \"{}h\"}}}}", "9".repeat(10_000));
    let said = parse(long.as_bytes()).expect_err("too long").to_string();
    assert!(said.len() < 200, "{} bytes: {said}", said.len());
}

#[test]
fn nesting_beyond_all_reason_is_refused_and_not_a_crash() {
    for open in ["[", "{\"match\":"] {
        let said =
            parse(format!("{{\"match\": {}", open.repeat(100_000)).as_bytes()).expect_err("too deep").to_string();
        assert!(said.starts_with("configuration: is not JSON: recursion limit exceeded"), "{said}");
    }
}

#[test]
fn no_text_means_the_defaults_of_the_contract() {
    let cluster = |name: &str| ClusterName(name.to_owned());
    let expected = Config {
        matching: Matching {
            path_prefixes: vec![],
            clusters: vec![],
            methods: ["POST", "PUT", "PATCH", "DELETE"].map(str::to_owned).to_vec(),
            prefer: Prefer::Ignore,
            route_opt_in: RouteOptIn::Off,
            grpc: Grpc::Off,
        },
        capture: Capture {
            mode: CaptureMode::Hold,
            form: CaptureAs::Routed,
            body_bytes_max: ByteCount(256 * 1024),
            hold_max: Millis(2_000),
            drop_headers: vec![],
        },
        reply: Reply::Accepted,
        shared: Rc::new(Policy {
            failure: Failure {
                statuses: vec![503],
                grpc_statuses: vec![14],
                unknown_outcome: UnknownOutcome::IfIdempotent,
            },
            hold_while_down: HoldWhileDown::Off,
            store: StoreLimits {
                messages_max: 10_000,
                bytes_max: ByteCount(64 * 1024 * 1024),
                ttl: Millis(86_400_000),
                intake: Intake::Open,
            },
            health: Health {
                source: HealthSource::Passive,
                cluster: cluster("redeliver_health"),
                path: "/{cluster}".to_owned(),
                interval: Millis(1_000),
                healthy_percent_min: 1,
                stable_for: Millis(2_000),
                probe_max: Millis(10_000),
                suspect_after: Millis(300_000),
            },
            redelivery: Redelivery {
                tick: Millis(100),
                timeout: Millis(15_000),
                backoff: Backoff {
                    initial: Millis(1_000),
                    max: Millis(300_000),
                    multiplier: Permille(2_000),
                    jitter: Permille(200),
                },
                attempts_max: 20,
                window: Window { initial: 5, max: 64 },
                rate: Rate::Unlimited,
                on_unauthorized: OnUnauthorized::Dead,
                through: None,
                order: Order::None,
            },
        }),
        idempotency: Idempotency {
            header: "idempotency-key".to_owned(),
            inject: Inject::Off,
            scope_headers: vec!["authorization".to_owned()],
        },
        dead_letter_ttl: Millis(168 * 3_600_000),
        trust: Trusted { senders: Trust::Withheld, receivers: Trust::Withheld },
        destinations: LiteMap::new(),
        any_hold_while_down: HoldWhileDown::Off,
        order_key_headers: Vec::new(),
    };
    for text in ["", " \n", "{}", r#"{"match": {}, "redelivery": {"backoff": {}}, "destinations": {}}"#] {
        assert_eq!(accepted(text), expected, "{text}");
    }
    assert!(!expected.protects_anything());
    assert!(expected.summary().starts_with("nothing is protected"), "{}", expected.summary());
}

#[test]
fn every_key_of_this_build_is_read_into_its_place() {
    let config = accepted(
        r#"{"match": {"path_prefixes": ["/orders", "/"], "clusters": ["orders", "outbound|80||a.b"], "methods": ["POST"],
                      "prefer": "required", "route_opt_in": true, "grpc": "unary"},
            "capture": {"mode": "stream", "as": "arrived", "max_body": 1024, "max_hold": "1h", "drop_headers": ["X-A"]},
            "failure": {"statuses": [502, 503], "grpc_statuses": [], "unknown_outcome": "always"},
            "reply": "original", "hold_while_down": true,
            "store": {"max_messages": 5, "max_bytes": "1GiB", "ttl": "1h30m", "accept": false},
            "health": {"source": "admin", "cluster": "admin", "path": "/x", "interval": "250ms",
                       "min_healthy_percent": 50, "stable_for": "0s", "probe_max": "1m", "suspect_after": "1s"},
            "redelivery": {"tick": "50ms", "timeout": "1m1s1ms", "max_attempts": 3, "window": {"initial": 1, "max": 1},
                           "rate": 2.5, "through": "again", "on_unauthorized": "park",
                           "backoff": {"initial": "1ms", "max": "1ms", "multiplier": 1, "jitter": 0.125},
                           "order": "by_key", "order_key_header": "X-Account", "on_dead_head": "block"},
             "idempotency": {"header": "X-Key", "inject": true, "scope_headers": ["X-Tenant"]},
            "dead_letter": {"ttl": "1h"},
             "trust": {"from_senders": true, "from_receivers": true},
            "destinations": {"outbound|80||a.b": {"authority": "a.b:80"}, "orders": {}}}"#,
    );
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let cluster = |name: &str| ClusterName(name.to_owned());
    let expected = Config {
        matching: Matching {
            path_prefixes: texts(&["/orders", "/"]),
            clusters: vec![cluster("orders"), cluster("outbound|80||a.b")],
            methods: texts(&["POST"]),
            prefer: Prefer::Required,
            route_opt_in: RouteOptIn::Required,
            grpc: Grpc::Unary,
        },
        capture: Capture {
            mode: CaptureMode::Stream,
            form: CaptureAs::Arrived,
            body_bytes_max: ByteCount(1024),
            hold_max: Millis(3_600_000),
            drop_headers: texts(&["x-a"]),
        },
        reply: Reply::Original,
        shared: Rc::new(Policy {
            failure: Failure {
                statuses: vec![502, 503],
                grpc_statuses: vec![],
                unknown_outcome: UnknownOutcome::Always,
            },
            hold_while_down: HoldWhileDown::On,
            store: StoreLimits {
                messages_max: 5,
                bytes_max: ByteCount(1 << 30),
                ttl: Millis(5_400_000),
                intake: Intake::Closed,
            },
            health: Health {
                source: HealthSource::Admin,
                cluster: cluster("admin"),
                path: "/x".to_owned(),
                interval: Millis(250),
                healthy_percent_min: 50,
                stable_for: Millis::ZERO,
                probe_max: Millis(60_000),
                suspect_after: Millis(1_000),
            },
            redelivery: Redelivery {
                tick: Millis(50),
                timeout: Millis(61_001),
                backoff: Backoff {
                    initial: Millis(1),
                    max: Millis(1),
                    multiplier: Permille(1_000),
                    jitter: Permille(125),
                },
                attempts_max: 3,
                window: Window { initial: 1, max: 1 },
                rate: Rate::PerSecond(Permille(2_500)),
                on_unauthorized: OnUnauthorized::Park,
                through: Some(cluster("again")),
                order: Order::ByKey(KeyOrder { header: "x-account".to_owned(), on_dead_head: OnDeadHead::Block }),
            },
        }),
        idempotency: Idempotency {
            header: "x-key".to_owned(),
            inject: Inject::On,
            scope_headers: vec!["x-tenant".to_owned()],
        },
        dead_letter_ttl: Millis(3_600_000),
        trust: Trusted { senders: Trust::Given, receivers: Trust::Given },
        destinations: LiteMap::new(),
        any_hold_while_down: HoldWhileDown::On,
        order_key_headers: vec!["x-account".to_owned()],
    };
    let own = |authority: Option<&str>| DestinationOverride {
        authority: authority.map(str::to_owned),
        policy: expected.shared.clone(),
    };
    let destinations =
        [(cluster("outbound|80||a.b"), own(Some("a.b:80"))), (cluster("orders"), own(None))].into_iter().collect();
    let expected = Config { destinations, ..expected.clone() };
    assert_eq!(config, expected);
}

#[test]
fn each_of_four_choices_protects_and_the_summary_says_what() {
    for (text, phrase) in [
        (r#"{"match": {"path_prefixes": ["/a", "/b"]}}"#, "POST, PUT, PATCH, DELETE with path prefix /a or /b;"),
        (r#"{"match": {"clusters": ["c"], "methods": ["PUT"]}}"#, "PUT to cluster c;"),
        (r#"{"match": {"prefer": "required"}}"#, "POST, PUT, PATCH, DELETE that prefer respond-async;"),
        (r#"{"match": {"route_opt_in": true}}"#, "POST, PUT, PATCH, DELETE on routes that opt in;"),
        (
            r#"{"match": {"clusters": ["c"], "methods": ["POST"], "grpc": "unary"}}"#,
            "POST to cluster c, unary gRPC calls too;",
        ),
    ] {
        let config = accepted(text);
        assert!(config.protects_anything(), "{text}");
        assert!(config.summary().starts_with(&format!("protects {phrase}")), "{}", config.summary());
    }
    let limits = "held bodies up to 256KiB; keeps up to 10000 messages, 64MiB, for 24h";
    let closed = accepted(r#"{"match": {"prefer": "required"}, "store": {"accept": false}}"#).summary();
    assert!(closed.ends_with(&format!("{limits}; intake closed: nothing new is stored")), "{closed}");
    let clusterless = accepted(r#"{"match": {"methods": ["PUT"]}}"#);
    assert!(!clusterless.protects_anything(), "methods alone choose nothing");
}

#[test]
fn every_default_may_also_be_written_out() {
    let built = table::rows().into_iter().filter(|row| row.area == table::Area::Filter && row.default != "null");
    for row in built {
        let text = row.path.rsplit('.').fold(row.default.to_owned(), |inner, key| format!("{{\"{key}\": {inner}}}"));
        assert_eq!(accepted(&text), accepted(""), "{text}");
    }
}

/// The pages that show the table, from the root of the repository; README.md takes part once it has the markers.
#[cfg(not(target_arch = "wasm32"))]
const PAGES: [&str; 2] = ["docs/configuration.md", "README.md"];

#[cfg(not(target_arch = "wasm32"))]
#[test]
fn the_documents_show_the_table_that_the_parser_uses() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rewrite = std::env::var_os("UPDATE_DOCS").is_some();
    for page in PAGES {
        let text = std::fs::read_to_string(root.join(page)).unwrap_or_default();
        let Some((before, rest)) = text.split_once(TABLE_BEGIN) else {
            assert_ne!(page, PAGES[0], "{page} has no line {TABLE_BEGIN}");
            continue;
        };
        let (_, after) = rest.split_once(TABLE_END).unwrap_or_else(|| panic!("{page} has no line {TABLE_END}"));
        let fresh = format!("{before}{}{after}", reference_table());
        if rewrite {
            std::fs::write(root.join(page), &fresh).expect("the page can be written");
        }
        assert!(rewrite || fresh == text, "{page} is stale: run UPDATE_DOCS=1 cargo test -p redeliver-core config");
    }
}
