use super::*;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn reserved(budget: &Arc<Budget>, peer: IpAddr, bytes: usize) -> Result<Permit, Refused> {
    let mut permit = budget.begin(peer);
    permit.grow_to(bytes)?;
    Ok(permit)
}

fn arrived(budget: &Arc<Budget>, peer: IpAddr, bytes: usize) -> Permit {
    let mut permit = reserved(budget, peer, bytes).unwrap();
    permit.arrived().unwrap();
    permit
}

#[test]
fn what_is_reserved_is_given_back() {
    let budget = Budget::new(100);
    let mut first = arrived(&budget, A, 60);
    assert!(!budget.is_strained());
    assert_eq!(reserved(&budget, A, 41).unwrap_err(), Refused::Full);
    assert!(budget.is_strained());
    let second = reserved(&budget, A, 40).unwrap();
    assert_eq!(budget.used(), 100);
    drop(second);
    first.grow_to(90).unwrap();
    assert_eq!(
        first.grow_to(101).unwrap_err(),
        Refused::NeverFits { limit: 100 }
    );
    assert_eq!(first.bytes(), 90);
    first.set(10);
    assert_eq!(budget.used(), 10);
    first.set(150);
    assert_eq!(
        (budget.used(), reserved(&budget, A, 1).unwrap_err()),
        (150, Refused::Full)
    );
    drop(first);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_promise_reserves_nothing() {
    let budget = Budget::new(100);
    let promises: Vec<_> = (0..500).map(|_| budget.begin(A)).collect();
    assert!(promises.iter().all(|permit| permit.may_grow_to(100)));
    assert_eq!(budget.used(), 0);
    reserved(&budget, B, 100).unwrap();
}

#[test]
fn the_youngest_gives_way_to_those_begun_before() {
    let budget = Budget::new(100);
    let mut first = reserved(&budget, A, 50).unwrap();
    let mut second = reserved(&budget, A, 30).unwrap();
    let mut third = reserved(&budget, A, 20).unwrap();
    assert_eq!(third.grow_to(21).unwrap_err(), Refused::Full);
    first.grow_to(60).unwrap();
    assert_eq!(
        third.arrived().unwrap_err(),
        Refused::Full,
        "it was refused"
    );
    assert_eq!(budget.used(), 90);
    second.arrived().unwrap();
    // What has arrived stays.
    assert_eq!(first.grow_to(80).unwrap_err(), Refused::Full);
    drop(third);
    assert_eq!(budget.used(), 90, "given back once");
    drop((first, second));
    assert_eq!(budget.used(), 0);
}

#[test]
fn one_peer_holds_a_quarter_while_others_wait() {
    let budget = Budget::new(100);
    let hoard: Vec<_> = (0..10).map(|_| reserved(&budget, A, 10).unwrap()).collect();
    let mut other = budget.begin(B);
    assert!(other.may_grow_to(25));
    other.grow_to(25).unwrap();
    let revoked = hoard.iter().filter(|permit| permit.is_revoked()).count();
    assert_eq!((revoked, budget.used()), (3, 95));
    // What it has in hand counts as well: while another was refused it gets no more.
    let worked_on = Budget::new(100);
    let mut hoard: Vec<_> = (0..10).map(|_| arrived(&worked_on, A, 10)).collect();
    assert_eq!(reserved(&worked_on, B, 10).unwrap_err(), Refused::Full);
    hoard.truncate(8);
    assert_eq!(reserved(&worked_on, A, 10).unwrap_err(), Refused::Full);
    let mut other = reserved(&worked_on, B, 10).unwrap();
    other.arrived().unwrap();
    // And when nobody waits any more it may have all of it.
    reserved(&worked_on, A, 10).unwrap();
}

#[tokio::test]
async fn a_body_that_has_begun_waits_for_room_in_its_turn() {
    let budget = Budget::new(100);
    let batch = arrived(&budget, A, 70);
    let mut first = reserved(&budget, A, 10).unwrap();
    let mut second = reserved(&budget, A, 10).unwrap();
    let waiting = tokio::spawn(async move {
        first.grow_when_free(60).await.unwrap();
        first
    });
    while !budget.lock().somebody_waits() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        second.arrived().unwrap_err(),
        Refused::Full,
        "the younger has given way"
    );
    assert!(!budget.begin(B).may_grow_to(5), "others come after it");
    drop(batch);
    assert_eq!(waiting.await.unwrap().bytes(), 60);
    assert_eq!(budget.used(), 0);
}

#[test]
fn many_threads_never_pass_the_limit() {
    let budget = Budget::new(1000);
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let budget = &budget;
            scope.spawn(move || {
                let peer = IpAddr::from([10, 0, 0, thread]);
                for size in 0..2000 {
                    if let Ok(mut permit) = reserved(budget, peer, size % 400) {
                        assert!(budget.used() <= 1000);
                        let _ = permit.grow_to(size % 700);
                        if permit.arrived().is_ok() {
                            permit.set(permit.bytes() / 2);
                        }
                    }
                }
            });
        }
    });
    assert_eq!(budget.used(), 0);
}
