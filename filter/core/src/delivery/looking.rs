//! The look before a request goes out: what is stored may stand in its way.
//!
//! | idempotency key | ordering key | whole body is known | the request |
//! | --- | --- | --- | --- |
//! | none, or not known | none, or its line is empty | - | passes |
//! | known, same content | - | yes | joins the first one |
//! | known, other content | - | yes | is refused |
//! | known | none, or its line is empty | no | passes: nobody can tell whether it is the same |
//! | known, and this is its own redelivery | - | - | passes: a listener of this Envoy is the destination |
//! | none, not known, or no body | its line has messages | - | must stand behind them |
//!
//! Without one of the two keys nothing is asked; with one that nothing is known of it is one read for each. Never writes
//! but to take out a stale entry.

use super::Delivery;
use crate::config::{KeyOrder, OnDeadHead, Order, Trust};
use crate::digest::{self, Fingerprint, LineKey};
use crate::duplicates::{Known, Recall, Retry};
use crate::headers::{HEADER_ID, HeaderList};
use crate::lines::Line;
use crate::memory::SharedMemory;
use crate::message::{MessageId, Ties};
use crate::neighbours::Hops;
use crate::protect::RouteFacts;
use crate::store::Now;
use crate::units::{ClusterName, Monotonic};

/// What is done with a request that is about to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It goes on.
    Passes,
    /// It is a retry of this message: its sender is told so.
    Joins(MessageId),
    /// Its idempotency key belongs to another request.
    ReusesKey,
    /// It must be stored behind messages of its ordering key, or not go on at all.
    MustWait,
}

/// The line of a request, and what holds it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineRule {
    /// Which one.
    pub line: LineKey,
    /// What dead letters do to it.
    pub on_dead_head: OnDeadHead,
}

impl Delivery {
    /// Looks at what is stored. `body` is the whole body, if it is known by now; `clock` is read only if there is a key.
    #[must_use]
    pub fn look_before(
        &self,
        memory: &dyn SharedMemory,
        arrived: &HeaderList,
        body: Option<&[u8]>,
        route: &dyn RouteFacts,
        clock: &dyn Fn() -> Now,
    ) -> Look {
        match body.and_then(|body| self.retry(memory, arrived, body, route, clock)) {
            Some(Retry::Joins(id)) => Look::Joins(id),
            Some(Retry::Reuses) => Look::ReusesKey,
            None => match self.line_of(arrived, route).map(|line| self.line(memory, line, clock().monotonic)) {
                Some(Line::Waiting) => Look::MustWait,
                Some(Line::Empty) | None => Look::Passes,
            },
        }
    }

    fn retry(
        &self,
        memory: &dyn SharedMemory,
        arrived: &HeaderList,
        body: &[u8],
        route: &dyn RouteFacts,
        clock: &dyn Fn() -> Now,
    ) -> Option<Retry> {
        let identity = digest::identity(arrived, &self.config.idempotency)?;
        match self.store(memory).recall(identity, clock()) {
            Recall::Known(known) if self.is_its_redelivery(memory, &known, arrived) => None,
            Recall::Known(known) => Some(known.judge(digest::content(arrived, &route.cluster()?, body))),
            // The one that is being stored has been promised to nobody yet.
            Recall::New | Recall::BeingStored => None,
        }
    }

    /// Whether a request is a redelivery of this very message, which has come to a listener of the same Envoy: it must not
    /// join itself. Of a trusted sender it may as well be that one's second attempt, which joins: then it has passed
    /// through one filter less.
    #[must_use]
    pub fn is_its_redelivery(&self, memory: &dyn SharedMemory, known: &Known, arrived: &HeaderList) -> bool {
        let is_named = arrived.first(HEADER_ID).and_then(MessageId::read) == Some(known.id);
        let hops = || known.held.and_then(|ticket| self.store(memory).hops_of(ticket));
        match self.config.trust.senders {
            Trust::Withheld => is_named,
            Trust::Given => is_named && hops() == Some(Hops::said(arrived)),
        }
    }

    /// Whether messages stand in a line.
    #[must_use]
    pub fn line(&self, memory: &dyn SharedMemory, rule: LineRule, now: Monotonic) -> Line {
        self.store(memory).line(rule.line, rule.on_dead_head, now)
    }

    /// The line of a request; `None` if messages to its destination are not ordered, or it has no key. The destination's
    /// name is worth a host call only if there is a key that any destination asks for.
    #[must_use]
    pub fn line_of(&self, arrived: &HeaderList, route: &dyn RouteFacts) -> Option<LineRule> {
        if !self.config.order_key_headers.iter().any(|header| arrived.first(header).is_some()) {
            return None;
        }
        self.line_to(arrived, &route.cluster()?)
    }

    fn line_to(&self, arrived: &HeaderList, cluster: &ClusterName) -> Option<LineRule> {
        match &self.config.of(cluster).redelivery.order {
            Order::None => None,
            Order::ByKey(KeyOrder { header, on_dead_head }) => {
                digest::line(arrived, cluster, header).map(|line| LineRule { line, on_dead_head: *on_dead_head })
            }
        }
    }

    /// What a message that is stored has to do with others.
    #[must_use]
    pub fn ties(&self, arrived: &HeaderList, cluster: &ClusterName, body: &[u8]) -> Ties {
        let fingerprint = digest::identity(arrived, &self.config.idempotency)
            .map(|identity| Fingerprint { identity, content: digest::content(arrived, cluster, body) });
        let line = self.line_to(arrived, cluster).map(|rule| rule.line);
        Ties { fingerprint, line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::headers::HEADER_HOPS;
    use crate::keys::Keys;
    use crate::memory::double::{MemoryDouble, VmMemory};
    use crate::message::Message;
    use crate::protect::RouteSwitch;
    use crate::slot::DestinationIndex;
    use crate::store::{FirstState, Limits, Store};
    use crate::units::Wall;
    use std::rc::Rc;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    struct ToOrders;

    impl RouteFacts for ToOrders {
        fn cluster(&self) -> Option<ClusterName> {
            Some(ClusterName("orders".to_owned()))
        }
        fn switch(&self) -> RouteSwitch {
            RouteSwitch::Unset
        }
    }

    fn now() -> Now {
        Now { monotonic: Monotonic(1_000), wall: Wall(5_000) }
    }

    fn config(order: &str) -> Config {
        let text = format!(r#"{{"capture": {{"as": "arrived"}}, "redelivery": {{"order": "{order}"}}}}"#);
        crate::config::parse(text.as_bytes()).unwrap()
    }

    fn delivery(config: Config) -> Delivery {
        Delivery::new(Rc::new(config), Keys::of(b"test"), 1, 7, Monotonic(0))
    }

    fn request(key: &str, account: &str) -> HeaderList {
        let line = [(":authority", "h"), (":method", "POST"), (":path", "/in"), ("authorization", "alice")];
        let keys = [("idempotency-key", key), ("x-ordering-key", account)];
        let given = line.into_iter().chain(keys.into_iter().filter(|(_, value)| !value.is_empty()));
        given.collect()
    }

    /// A memory in which one message of key `k` and account `a`, with body `ten`, is stored.
    fn stored(delivery: &Delivery) -> (MemoryDouble, MessageId) {
        let memory = MemoryDouble::default();
        let cluster = ToOrders.cluster().unwrap();
        let ties = delivery.ties(&request("k", "a"), &cluster, b"ten");
        let message = Message { ties, cluster, ..crate::message::tests::message("/in") };
        let store = Store { memory: &memory, keys: &delivery.keys };
        let first = FirstState::Queued(Monotonic(2_000));
        let limits = Limits::shared(&delivery.config.shared.store);
        store.put(&message, DestinationIndex(0), first, limits, now()).unwrap();
        (memory, message.id)
    }

    #[test]
    fn every_request_meets_its_row_of_the_table() {
        for order in ["none", "by_key"] {
            let delivery = delivery(config(order));
            let (memory, id) = stored(&delivery);
            let behind = if order == "by_key" { Look::MustWait } else { Look::Passes };
            let cases = [
                ("", "", Some("ten"), Look::Passes),
                ("other", "other", Some("ten"), Look::Passes),
                ("k", "a", Some("ten"), Look::Joins(id)),
                ("k", "other", Some("ten"), Look::Joins(id)),
                ("k", "a", Some("eleven"), Look::ReusesKey),
                ("k", "", None, Look::Passes),
                ("k", "a", None, behind),
                ("", "a", Some("ten"), behind),
                ("other", "a", Some("ten"), behind),
            ];
            for (key, account, body, expected) in cases {
                let body = body.map(str::as_bytes);
                let look = delivery.look_before(&memory, &request(key, account), body, &ToOrders, &now);
                assert_eq!(look, expected, "{order}: key {key:?}, account {account:?}, body {body:?}");
            }
        }
    }

    #[test]
    fn a_redelivery_that_comes_to_a_listener_of_its_own_envoy_does_not_join_itself() {
        // What is stored says one hop. Among neighbours, one who says none is the hop before, at its second attempt.
        for (trust, hops, joins) in [
            ("false", "1", false),
            ("false", "0", false),
            ("true", "1", false),
            ("true", "0", true),
            ("true", "", true),
        ] {
            let text = format!(r#"{{"trust": {{"from_senders": {trust}}}}}"#);
            let delivery = delivery(crate::config::parse(text.as_bytes()).unwrap());
            let (memory, id) = stored(&delivery);
            let (plain, text) = (request("k", "a"), id.to_string());
            let ours = [(HEADER_ID.as_bytes(), text.as_bytes()), (HEADER_HOPS.as_bytes(), hops.as_bytes())];
            let arrived = plain.iter().chain(ours).collect();
            let look = delivery.look_before(&memory, &arrived, Some(b"ten"), &ToOrders, &now);
            let expected = if joins { Look::Joins(id) } else { Look::Passes };
            assert_eq!(look, expected, "trust: {trust}, hops: {hops:?}");
        }
    }

    #[test]
    fn each_destination_has_its_own_order_and_its_own_header() {
        let by_key = r#"{"redelivery": {"order": "by_key", "order_key_header": "x-ordering-key"}}"#;
        for (cluster, header, is_ordered) in
            [("orders", "x-ordering-key", true), ("mail", "x-ordering-key", false), ("orders", "x-other", false)]
        {
            let text = format!(
                r#"{{"capture": {{"as": "arrived"}}, "destinations": {{"{cluster}": {}}}}}"#,
                by_key.replace("x-ordering-key", header)
            );
            let delivery = delivery(crate::config::parse(text.as_bytes()).unwrap());
            let arrived = request("k", "a");
            let line = delivery.line_of(&arrived, &ToOrders);
            assert_eq!(line.is_some(), is_ordered, "{text}");
            let ties = delivery.ties(&arrived, &ToOrders.cluster().unwrap(), b"ten");
            assert_eq!(ties.line, line.map(|rule| rule.line), "{text}");
        }
    }

    #[test]
    fn a_look_costs_a_read_for_each_key_and_nothing_without() {
        let delivery = delivery(config("by_key"));
        let (memory, _) = stored(&delivery);
        for (key, account, reads) in [("", "", 0), ("new", "", 1), ("", "new", 1), ("new", "new", 2)] {
            let vm = VmMemory::immortal(&memory);
            let look = delivery.look_before(&vm, &request(key, account), Some(b"x"), &ToOrders, &now);
            assert_eq!((look, vm.calls()), (Look::Passes, reads), "key {key:?}, account {account:?}");
        }
    }
}
