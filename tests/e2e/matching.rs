//! Which requests are protected (CONTRACT, section 3, `match`): nothing is, unless it was chosen.

use redeliver_tests::envoy::Push;
use redeliver_tests::{Bootstrap, Custody, Destination, Filter, Receiver, Request, Route, SOON};
use serde_json::{Value, json};

/// Requests to routes of three kinds, each with and without `Prefer: respond-async`, while the receiver is absent.
const PATHS: [&str; 3] = ["/chosen", "/excluded", "/silent"];

/// A match rule, and what of the requests it protects.
struct Case {
    rule: Value,
    protects: &'static [(&'static str, &'static str)],
}

fn cases() -> Vec<Case> {
    let case = |rule, protects| Case { rule, protects };
    vec![
        case(json!({}), &[]),
        case(json!({"methods": ["POST", "PUT"]}), &[]),
        case(
            json!({"path_prefixes": ["/"]}),
            &[("/chosen", "POST"), ("/silent", "POST"), ("/chosen", "DELETE"), ("/silent", "DELETE")],
        ),
        case(json!({"path_prefixes": ["/silent"]}), &[("/silent", "POST"), ("/silent", "DELETE")]),
        case(json!({"path_prefixes": ["/nowhere", "/sil"], "methods": ["DELETE"]}), &[("/silent", "DELETE")]),
        case(json!({"clusters": ["orders"], "methods": ["POST"]}), &[("/chosen", "POST"), ("/silent", "POST")]),
        case(json!({"clusters": ["other"]}), &[]),
        case(json!({"clusters": ["orders"], "path_prefixes": ["/silent"], "methods": ["GET"]}), &[("/silent", "GET")]),
        case(json!({"route_opt_in": true}), &[("/chosen", "POST"), ("/chosen", "DELETE")]),
        case(json!({"route_opt_in": true, "path_prefixes": ["/silent"]}), &[]),
    ]
}

#[tokio::test]
async fn a_request_is_protected_if_all_given_conditions_hold() {
    let orders = Receiver::absent().await;
    let routed = |filter: Filter| {
        Bootstrap::new()
            .destination(Destination::new("orders", orders.port()))
            .route(Route::new("/chosen", "orders").metadata(json!({"enabled": true})))
            .route(Route::new("/excluded", "orders").metadata(json!({"enabled": false})))
            .route(Route::new("/", "orders"))
            .filter(filter)
    };
    let envoy = routed(Filter::quick(json!({"match": null}))).start().await;
    for Case { rule, protects } in cases() {
        let filter = Filter::quick(json!({"match": {"path_prefixes": null}})).patched(json!({"match": rule}));
        assert_eq!(envoy.push(&routed(filter)).await, Push::Taken, "{rule}");
        for path in PATHS {
            for method in ["GET", "POST", "DELETE"] {
                let answer = envoy.send(&Request::new(method, path)).await;
                let expected = if protects.contains(&(path, method)) { Custody::Stored } else { Custody::Unsaid };
                assert_eq!(answer.custody(), expected, "{method} {path} under {rule}");
                assert_eq!(answer.status, if expected == Custody::Stored { 202 } else { 503 });
            }
        }
    }
}

#[tokio::test]
async fn prefer_required_protects_only_those_who_ask_for_respond_async() {
    let orders = Receiver::absent().await;
    let filter = Filter::quick(json!({"match": {"path_prefixes": null, "prefer": "required"}}));
    let envoy = Bootstrap::orders(orders.port(), filter).start().await;
    const PREFERENCES: &[(&[&str], bool)] = &[
        (&["respond-async"], true),
        (&["Respond-Async"], true),
        (&["wait=10, respond-async"], true),
        (&["return=minimal", "respond-async; foo=\"bar\""], true),
        (&["return=minimal"], false),
        (&["respond-asynchronously"], false),
        (&["x=\"respond-async\""], false),
        (&[], false),
    ];
    for (values, protects) in PREFERENCES {
        let request = values.iter().fold(Request::post("/a"), |request, value| request.header("prefer", value));
        let answer = envoy.send(&request).await;
        if *protects {
            answer.stored_id();
            assert_eq!(answer.header("preference-applied").as_deref(), Some("respond-async"), "{values:?}");
        } else {
            assert_eq!((answer.status, answer.custody()), (503, Custody::Unsaid), "{values:?}");
        }
    }
    envoy.wait_metrics("four are stored", SOON, |m| m.stored() == 4).await;
}

#[tokio::test]
async fn the_log_says_what_is_protected_and_warns_if_nothing_is() {
    let orders = Receiver::start().await;
    let nothing = Bootstrap::orders(orders.port(), Filter::quick(json!({"match": null}))).start().await;
    let warning = nothing.wait_log("[warning][wasm]", 1).await;
    assert!(warning[0].contains("nothing is protected"), "{warning:?}");
    drop(nothing);
    let filter = Filter::quick(json!({"match": {"path_prefixes": ["/shop"]}}));
    let something = Bootstrap::orders(orders.port(), filter).workers(3).start().await;
    something.wait_log("/shop", 1).await;
    something.send(&Request::post("/shop")).await;
    let wasm = something.log_lines_with("][wasm]");
    assert_eq!(wasm.len(), 1, "one line for all workers: {wasm:?}");
    assert!(wasm[0].contains("[info]"), "{wasm:?}");
}
