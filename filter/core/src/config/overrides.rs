//! What differs for single destinations: each key under `destinations.<cluster>` lies over the shared one of its name.
//!
//! Never has rules of its own: a key is read by its row of the table, and rules between keys are checked of what comes out,
//! so a fault has the words of the shared key and the full path (`destinations.orders.redelivery.backoff.max: ...`).

use super::fault::{Fault, Faults};
use super::table::{Draft, Overlay, Source};
use super::tree::{Json, Object};
use super::{ClusterName, DestinationOverride, Policy, relations, walk};
use litemap::LiteMap;
use std::rc::Rc;

/// The destinations of `object`, over what they share; nothing if one has a fault. What is no object, [`walk`] has refused.
pub(super) fn read(
    object: &Object,
    shared: &Draft,
    faults: &mut Faults,
) -> Option<LiteMap<ClusterName, DestinationOverride>> {
    let authorities = shared.authorities.as_ref()?;
    let mut known = Faults::default();
    relations::check(shared, &mut known);
    let groups = walk::overridable();
    let mut destinations = Some(LiteMap::new());
    for (cluster, authority) in authorities {
        let place = walk::below(walk::PER_CLUSTER, &cluster.0);
        let overlay = Overlay { keys: own_keys(object, cluster), place: &place, groups: &groups, shared };
        let policy = Policy::of(&read_one(&overlay, &known, faults));
        let own = policy.map(|policy| DestinationOverride { authority: authority.clone(), policy: Rc::new(policy) });
        destinations = destinations.zip(own).map(|(mut destinations, own)| {
            destinations.insert(cluster.clone(), own);
            destinations
        });
    }
    destinations
}

/// The object of one cluster.
fn own_keys<'a>(object: &'a Object, cluster: &ClusterName) -> &'a Object {
    const NONE: &Object = &Object::new();
    let given = walk::first(object, walk::PER_CLUSTER).and_then(inner);
    given.and_then(|destinations| walk::first(destinations, &cluster.0)).and_then(inner).unwrap_or(NONE)
}

fn inner(json: &Json) -> Option<&Object> {
    if let Json::Object(object) = json { Some(object) } else { None }
}

fn read_one(overlay: &Overlay<'_>, known: &Faults, faults: &mut Faults) -> Draft {
    let draft = Draft::read(&Source::OneCluster(overlay), faults);
    let mut contradictions = Faults::default();
    relations::check(&draft, &mut contradictions);
    // One that the shared keys have by themselves has been told.
    let own = contradictions.0.into_iter().filter(|fault| !known.0.contains(fault));
    faults.0.extend(own.map(|fault| Fault { path: format!("{}.{}", overlay.place, fault.path), ..fault }));
    draft
}
