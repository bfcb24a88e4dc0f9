//! The order of nodes for a key.

use outlive_core::failover::rendezvous::{is_among, order, weight};
use outlive_core::id::NodeId;
use proptest::prelude::*;
use uuid::Uuid;

fn node(n: u128) -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(n))
}

#[test]
fn nodes_of_all_versions_agree_on_the_numbers() {
    let key = Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);
    let weights: Vec<u64> = (1..=3).map(|n| weight(&key, node(n))).collect();
    insta::assert_snapshot!(format!("{weights:016x?}"), @"[b5cef50f66521541, 771e14d8fd0e0635, 651316a7331cbe04]");
}

proptest! {
    #[test]
    fn the_order_of_the_others_stays_when_one_goes(key: u128, nodes in prop::collection::btree_set(any::<u128>(), 1..12), gone: prop::sample::Index) {
        let key = Uuid::from_u128(key);
        let all = order(&key, nodes.iter().map(|n| node(*n)));
        let gone = all[gone.index(all.len())];
        let left: Vec<NodeId> = all.iter().copied().filter(|node| *node != gone).collect();
        prop_assert_eq!(order(&key, left.iter().rev().copied()), left);
        for (place, who) in all.iter().enumerate() {
            let others = || all.iter().copied().filter(|other| other != who);
            prop_assert!(is_among(&key, *who, others(), place + 1));
            prop_assert!(!is_among(&key, *who, others(), place));
        }
    }

    /// Ten sessions of a lost node do not all go to one survivor.
    #[test]
    fn keys_are_spread(first: u64) {
        let mut counts = [0_u32; 4];
        for n in 0..400 {
            let key = Uuid::from_u128((u128::from(first) << 64) + n);
            let best = order(&key, (0..4).map(node))[0];
            counts[usize::try_from(best.as_uuid().as_u128()).unwrap()] += 1;
        }
        prop_assert!(counts.iter().all(|count| (50..=160).contains(count)), "{counts:?}");
    }
}
