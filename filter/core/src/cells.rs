//! The small shared cells: each has one kind of writer, and all VMs read them.
//!
//! | cell | who writes | what it is for |
//! | --- | --- | --- |
//! | destinations | any VM that meets a new one | a number for each cluster name; never shrinks |
//! | leadership | the leader of that destination | lease and epoch; state for `hold_while_down`; figures for the gauges |
//! | evidence | any VM, on failures of live traffic | what the state machine is told about live requests |
//! | live ([`crate::live`]) | every VM, while there is a backlog | live requests in flight |
//! | verdict | the poller | what the active health source said |
//! | housekeeping, polling | who has the duty | its lease |
//! | rule | any VM | which configuration is the newest |
//!
//! A damaged cell reads as if it had never been written; each is rewritten within a tick or two, the table of destinations
//! by any VM that still knows it. A message carries its cluster's name too, so it never goes where the table errs.

use crate::codec::{Damage, Reader, Writer};
use crate::slot::Epoch;
use crate::units::{ClusterName, Monotonic};

/// A VM's root context: random, so no two share one (every VM's random source differs, measured).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VmId(pub u64);

/// Destinations at most: their table is one cell that is read whole. A proxy with more protected clusters that fail is
/// not known; the limit keeps a flood of made-up clusters from growing the table without end.
pub const DESTINATIONS_MAX: usize = 4_096;

/// Reads the table of destinations: a name's place is its index.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode_destinations(bytes: &[u8]) -> Result<Vec<ClusterName>, Damage> {
    let mut reader = Reader::open(bytes, b'D')?;
    let count = reader.u16()?;
    let names = (0..count).map(|_| read_name(&mut reader)).collect::<Result<_, _>>()?;
    reader.close()?;
    Ok(names)
}

fn read_name(reader: &mut Reader<'_>) -> Result<ClusterName, Damage> {
    let name = std::str::from_utf8(reader.string()?).map_err(|_| Damage::Field)?;
    Ok(ClusterName(name.to_owned()))
}

/// The cell for `names`, at most [`DESTINATIONS_MAX`] of them.
#[must_use]
pub fn encode_destinations(names: &[ClusterName]) -> Vec<u8> {
    let mut writer = Writer::new(b'D', 64);
    writer.u16(u16::try_from(names.len()).unwrap_or(u16::MAX));
    for name in names {
        writer.string(name.0.as_bytes());
    }
    writer.finish()
}

/// A destination's state as its leader publishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishedState {
    /// Messages flow, or there are none.
    Up,
    /// No message is sent.
    Down,
    /// One message is out.
    Probing,
    /// The backlog drains through a growing window.
    Ramping,
}

/// Who leads a destination and what it says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The leader.
    pub leader: VmId,
    /// Its term.
    pub epoch: Epoch,
    /// The end of its lease.
    pub until: Monotonic,
    /// The destination's state.
    pub state: PublishedState,
    /// Attempts that are out.
    pub in_flight: u32,
    /// The beginning of the second in which the oldest live message was stored (wall clock, ms); 0 without one.
    pub oldest_stored_at: u64,
}

impl Leadership {
    /// The cell.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let state = match self.state {
            PublishedState::Up => 0,
            PublishedState::Down => 1,
            PublishedState::Probing => 2,
            PublishedState::Ramping => 3,
        };
        let mut writer = Writer::new(b'L', 40);
        writer.u64(self.leader.0).u32(self.epoch.0).u64(self.until.0).u8(state);
        writer.u32(self.in_flight).u64(self.oldest_stored_at);
        writer.finish()
    }

    /// Reads the cell.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader::open(bytes, b'L')?;
        let leadership = Self {
            leader: VmId(reader.u64()?),
            epoch: Epoch(reader.u32()?),
            until: Monotonic(reader.u64()?),
            state: match reader.u8()? {
                0 => PublishedState::Up,
                1 => PublishedState::Down,
                2 => PublishedState::Probing,
                3 => PublishedState::Ramping,
                _ => return Err(Damage::Field),
            },
            in_flight: reader.u32()?,
            oldest_stored_at: reader.u64()?,
        };
        reader.close()?;
        Ok(leadership)
    }
}

/// What live traffic showed of a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// When Envoy last answered "no healthy host".
    pub no_host_at: Monotonic,
    /// Connection failures in a row.
    pub connect_failures: u32,
    /// When the receiver last answered a live request after trouble. Without trouble nobody writes it.
    pub success_at: Monotonic,
}

impl Evidence {
    /// The cell.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(b'E', 20);
        writer.u64(self.no_host_at.0).u32(self.connect_failures).u64(self.success_at.0);
        writer.finish()
    }

    /// Reads the cell.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader::open(bytes, b'E')?;
        let evidence = Self {
            no_host_at: Monotonic(reader.u64()?),
            connect_failures: reader.u32()?,
            success_at: Monotonic(reader.u64()?),
        };
        reader.close()?;
        Ok(evidence)
    }
}

/// What an active source can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Envoy calls enough of the cluster's hosts healthy.
    Healthy,
    /// It does not.
    Unhealthy,
}

/// A verdict and its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What was said last.
    pub verdict: Verdict,
    /// Since when it has been said without a break.
    pub since: Monotonic,
    /// When it was said last.
    pub seen_at: Monotonic,
}

impl Observation {
    /// `verdict`, said at `now` after `before`.
    #[must_use]
    pub fn following(before: Option<Self>, verdict: Verdict, now: Monotonic) -> Self {
        let since = before.filter(|last| last.verdict == verdict).map_or(now, |last| last.since);
        Self { verdict, since, seen_at: now }
    }

    /// The cell.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(b'V', 17);
        writer.u8(match self.verdict {
            Verdict::Healthy => 1,
            Verdict::Unhealthy => 2,
        });
        writer.u64(self.since.0).u64(self.seen_at.0);
        writer.finish()
    }

    /// Reads the cell.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader::open(bytes, b'V')?;
        let verdict = match reader.u8()? {
            1 => Verdict::Healthy,
            2 => Verdict::Unhealthy,
            _ => return Err(Damage::Field),
        };
        let observation = Self { verdict, since: Monotonic(reader.u64()?), seen_at: Monotonic(reader.u64()?) };
        reader.close()?;
        Ok(observation)
    }
}

/// A lease without further content: who holds it, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The holder.
    pub holder: VmId,
    /// Its end.
    pub until: Monotonic,
}

impl Lease {
    /// The cell.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(b'K', 16);
        writer.u64(self.holder.0).u64(self.until.0);
        writer.finish()
    }

    /// Reads the cell.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader::open(bytes, b'K')?;
        let lease = Self { holder: VmId(reader.u64()?), until: Monotonic(reader.u64()?) };
        reader.close()?;
        Ok(lease)
    }
}

/// What all VMs learned about the listener's buffers. A cell older than a VM's configuration says nothing to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureNotice {
    /// When the host was found not to deliver bodies of held requests; 0: never.
    pub degraded_at: Monotonic,
    /// When a full buffer showed that the listener's limit is smaller than `capture.max_body`; 0: never.
    pub limited_at: Monotonic,
    /// The limit learned from it, in bytes.
    pub body_bytes_max: u64,
}

impl CaptureNotice {
    /// The cell.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(b'N', 24);
        writer.u64(self.degraded_at.0).u64(self.limited_at.0).u64(self.body_bytes_max);
        writer.finish()
    }

    /// Reads the cell.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader::open(bytes, b'N')?;
        let notice = Self {
            degraded_at: Monotonic(reader.u64()?),
            limited_at: Monotonic(reader.u64()?),
            body_bytes_max: reader.u64()?,
        };
        reader.close()?;
        Ok(notice)
    }
}

/// Which configuration rules: the digest of its text, and when the first VM that has it was configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// CRC-32 of the configuration text.
    pub digest: u32,
    /// When it was configured.
    pub since: Monotonic,
    /// When a VM that has it was last alive: a rule that nobody follows any more gives way.
    pub seen_at: Monotonic,
}

impl Rule {
    /// The cell.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(b'C', 20);
        writer.u32(self.digest).u64(self.since.0).u64(self.seen_at.0);
        writer.finish()
    }

    /// Reads the cell.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader::open(bytes, b'C')?;
        let rule = Self { digest: reader.u32()?, since: Monotonic(reader.u64()?), seen_at: Monotonic(reader.u64()?) };
        reader.close()?;
        Ok(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_cell_reads_back_as_written() {
        let at = Monotonic(77);
        let names = vec![ClusterName("orders".to_owned()), ClusterName("outbound|80||a.b".to_owned())];
        assert_eq!(decode_destinations(&encode_destinations(&names)), Ok(names));
        for state in [PublishedState::Up, PublishedState::Down, PublishedState::Probing, PublishedState::Ramping] {
            let cell =
                Leadership { leader: VmId(1), epoch: Epoch(2), until: at, state, in_flight: 3, oldest_stored_at: 4 };
            assert_eq!(Leadership::decode(&cell.encode()), Ok(cell));
        }
        let evidence = Evidence { no_host_at: at, connect_failures: 4, success_at: at };
        assert_eq!(Evidence::decode(&evidence.encode()), Ok(evidence));
        for verdict in [Verdict::Healthy, Verdict::Unhealthy] {
            let cell = Observation { verdict, since: at, seen_at: at };
            assert_eq!(Observation::decode(&cell.encode()), Ok(cell));
        }
        let notice = CaptureNotice { degraded_at: at, limited_at: at, body_bytes_max: 9 };
        assert_eq!(CaptureNotice::decode(&notice.encode()), Ok(notice));
        let lease = Lease { holder: VmId(5), until: at };
        assert_eq!(Lease::decode(&lease.encode()), Ok(lease));
        let rule = Rule { digest: 9, since: at, seen_at: at };
        assert_eq!(Rule::decode(&rule.encode()), Ok(rule));
    }

    #[test]
    fn a_verdict_keeps_its_start_while_it_is_repeated() {
        let first = Observation::following(None, Verdict::Healthy, Monotonic(10));
        let second = Observation::following(Some(first), Verdict::Healthy, Monotonic(20));
        assert_eq!((second.since, second.seen_at), (Monotonic(10), Monotonic(20)));
        let third = Observation::following(Some(second), Verdict::Unhealthy, Monotonic(30));
        assert_eq!(third.since, Monotonic(30));
    }
}
