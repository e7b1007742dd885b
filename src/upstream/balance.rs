//! Which endpoint a connection goes to. Pure: what is drawn, whose turn it is and who asks are arguments.
//!
//! A client's address is bound to an endpoint by weighted rendezvous hashing (Thaler and Ravishankar 1998): each
//! endpoint draws a lot from its own address and the client's, and the best lot wins. So an endpoint that goes
//! takes only its own clients with it, whoever asks and in whatever order the endpoints are listed, and no ring
//! or table has to be built.

use std::net::IpAddr;

use crate::plan::by_weight;
use crate::plan::cluster::Balance;

/// What counts of an endpoint when one is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Its share, above zero.
    pub weight: u32,
    /// Connections to it that are open or being made.
    pub active: usize,
    /// A number made of its address, the same in every process: [`key`].
    pub key: u64,
}

/// What one connection brings to the choice.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    /// Drawn for it.
    pub random: u64,
    /// How many came before it.
    pub turn: u64,
    /// A number made of its client's address: [`source_key`].
    pub source: u64,
}

/// The endpoint of a connection, of `count` of which some may not be chosen; `None` if none may.
pub fn choose(
    balance: Balance,
    count: usize,
    candidate: impl Fn(usize) -> Option<Candidate>,
    draw: Draw,
) -> Option<usize> {
    let all = || (0..count).filter_map(|index| Some((index, candidate(index)?)));
    let weights = || (0..count).map(|index| candidate(index).map_or(0, |found| found.weight));
    match balance {
        Balance::InOrder => all().next().map(|(index, _)| index),
        Balance::Random => by_weight(weights(), draw.random),
        Balance::RoundRobin => by_turn(&weights, draw.turn),
        Balance::LeastRequest => {
            let first = by_weight(weights(), draw.random)?;
            let others = weights().enumerate().map(|(index, weight)| if index == first { 0 } else { weight });
            let Some(second) = by_weight(others, mix(draw.random)) else { return Some(first) };
            let [one, other] = [candidate(first)?, candidate(second)?];
            Some(if load(other) < load(one) { second } else { first })
        }
        Balance::SourceAddress => {
            let lots = all().map(|(index, found)| (lot(draw.source, found), index));
            lots.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, index)| index)
        }
    }
}

/// Connections for each unit of weight, once another is there.
fn load(candidate: Candidate) -> f64 {
    (f64::from(u32::try_from(candidate.active).unwrap_or(u32::MAX)) + 1.0) / f64::from(candidate.weight)
}

/// One after the other; with unequal weights each as often as it weighs, and not all its turns in a row.
fn by_turn<W: Iterator<Item = u32> + Clone>(weights: &impl Fn() -> W, turn: u64) -> Option<usize> {
    let divisor = u64::from(weights().filter(|weight| *weight > 0).fold(0, greatest_common_divisor));
    let total = weights().map(u64::from).sum::<u64>().checked_div(divisor)?;
    let chosen = weights().filter(|weight| *weight > 0).count() as u64;
    let slot = turn % total;
    let slot = if chosen == total { slot } else { slot.checked_mul(stride(total)).unwrap_or(slot) % total };
    by_weight(weights(), slot * divisor)
}

/// A step through so many slots that comes to each, and to distant ones first: the golden section of them, or
/// the next number that has no divisor in common with theirs.
fn stride(total: u64) -> u64 {
    let golden = total.saturating_mul(618) / 1000;
    (golden.max(1)..total.max(2)).find(|step| common_divisor(*step, total) == 1).unwrap_or(1)
}

fn greatest_common_divisor(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { greatest_common_divisor(other, one % other) }
}

fn common_divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { common_divisor(other, one % other) }
}

/// A candidate's lot for a client: the larger its weight, the better its lots.
fn lot(source: u64, candidate: Candidate) -> f64 {
    let bits = u32::try_from(mix(source ^ mix(candidate.key)) >> 32).unwrap_or_default();
    let share = (f64::from(bits) + 0.5) / (f64::from(u32::MAX) + 1.0);
    -f64::from(candidate.weight) / share.ln()
}

/// The number of an endpoint, or of a client, made of what is known of it everywhere.
pub fn key(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3) // FNV-1a
    })
}

/// The number of a client: its address counts, not its port.
pub fn source_key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => key(&address.octets()),
        IpAddr::V6(address) => key(&address.octets()),
    }
}

/// Spreads the bits of a number over all of it (splitmix64).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Balance; 5] = [
        Balance::InOrder,
        Balance::RoundRobin,
        Balance::LeastRequest,
        Balance::Random,
        Balance::SourceAddress,
    ];

    /// Endpoints with these weights, each as busy as it is told.
    fn candidates(weights: &[u32]) -> Vec<Option<Candidate>> {
        let candidate = |(index, weight): (usize, &u32)| {
            let key = key(format!("10.0.0.{index}:3306").as_bytes());
            Some(Candidate { weight: *weight, active: 0, key })
        };
        weights.iter().enumerate().map(candidate).collect()
    }

    fn draw(turn: u64) -> Draw {
        let client = u32::try_from(turn % 65_521).unwrap_or_default();
        let source = source_key(IpAddr::V4((0x0a01_0000 + client).into()));
        Draw { random: mix(turn), turn, source }
    }

    fn chosen(balance: Balance, candidates: &[Option<Candidate>], turn: u64) -> Option<usize> {
        choose(balance, candidates.len(), |index| candidates[index], draw(turn))
    }

    /// How often each is chosen of 4,000 connections that stay open.
    fn counts(balance: Balance, mut candidates: Vec<Option<Candidate>>) -> Vec<usize> {
        let mut counts = vec![0; candidates.len()];
        for turn in 0..4000 {
            let index = chosen(balance, &candidates, turn).expect("one");
            counts[index] += 1;
            if let Some(candidate) = &mut candidates[index] {
                candidate.active += 1;
            }
        }
        counts
    }

    fn check(balance: Balance, weights: &[u32], expected: &[usize], slack: usize) {
        let found = counts(balance, candidates(weights));
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.abs_diff(*expected) <= slack, "{balance:?} {weights:?}: {found:?} {expected:?}");
        }
    }

    #[test]
    fn connections_are_shared_as_the_algorithm_says() {
        check(Balance::InOrder, &[1, 1], &[4000, 0], 0);
        check(Balance::RoundRobin, &[1, 1, 1, 1], &[1000; 4], 0);
        check(Balance::RoundRobin, &[100, 300], &[1000, 3000], 0);
        check(Balance::RoundRobin, &[3, 7, 0, 10], &[600, 1400, 0, 2000], 0);
        check(Balance::LeastRequest, &[1, 1, 1, 1], &[1000; 4], 2);
        check(Balance::LeastRequest, &[0, 1], &[0, 4000], 0);
        check(Balance::Random, &[1, 1, 1, 1], &[1000; 4], 100);
        check(Balance::Random, &[1, 3], &[1000, 3000], 100);
        check(Balance::SourceAddress, &[1, 1, 1, 1], &[1000; 4], 100);
        check(Balance::SourceAddress, &[1, 3], &[1000, 3000], 100);
    }

    #[test]
    fn weighted_turns_are_not_taken_in_a_row() {
        let all = candidates(&[1, 3]);
        let order: Vec<_> = (0..8).map(|turn| chosen(Balance::RoundRobin, &all, turn).unwrap()).collect();
        assert_eq!(order.iter().filter(|index| **index == 0).count(), 2, "{order:?}");
        let all = candidates(&[5, 5, 1]);
        let order: Vec<_> = (0..11).map(|turn| chosen(Balance::RoundRobin, &all, turn).unwrap()).collect();
        let in_a_row = order.windows(3).any(|three| three.iter().all(|index| *index == three[0]));
        assert!(!in_a_row, "{order:?}");
    }

    #[test]
    fn of_two_that_are_drawn_the_less_busy_one_is_taken() {
        let mut all = candidates(&[1, 1]);
        all[0].as_mut().unwrap().active = 7;
        assert!((0..100).all(|turn| chosen(Balance::LeastRequest, &all, turn) == Some(1)));
        // The busiest is drawn, but never taken.
        let mut all = candidates(&[1, 1, 1]);
        all[2].as_mut().unwrap().active = 1;
        assert!((0..100).all(|turn| chosen(Balance::LeastRequest, &all, turn) != Some(2)));
    }

    #[test]
    fn who_may_not_be_chosen_is_not() {
        for balance in ALL {
            let mut all = candidates(&[1, 2, 3]);
            (all[0], all[2]) = (None, None);
            assert!((0..100).all(|turn| chosen(balance, &all, turn) == Some(1)), "{balance:?}");
            all[1] = None;
            assert_eq!(chosen(balance, &all, 1), None, "{balance:?}");
            assert_eq!(chosen(balance, &[], 1), None, "{balance:?}");
        }
    }

    #[test]
    fn r24_a_client_keeps_its_endpoint_unless_that_one_goes() {
        let all = candidates(&[1, 1, 1]);
        let of = |candidates: &[Option<Candidate>], client| {
            let again = [client, client + 65_521, client + 3 * 65_521];
            let found = again.map(|turn| chosen(Balance::SourceAddress, candidates, turn));
            assert!(found.iter().all(|index| *index == found[0]), "{client}: {found:?}");
            found[0].unwrap()
        };
        let mut without = all.clone();
        without[1] = None;
        // The order in which they are listed does not matter either.
        let reversed: Vec<_> = all.iter().rev().copied().collect();
        let mut moved = [0; 3];
        for client in 0..1000 {
            let before = of(&all, client);
            assert_eq!(2 - of(&reversed, client), before);
            let after = of(&without, client);
            if before == 1 {
                moved[after] += 1;
            } else {
                assert_eq!(after, before, "client {client} had another endpoint");
            }
        }
        assert!(moved[0] > 100 && moved[2] > 100 && moved[1] == 0, "its clients are shared: {moved:?}");
    }
}
