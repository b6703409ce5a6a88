//! One connection.

use super::super::{Affects, Definition, Event, Lifecycle, Refusal};
use super::*;

#[tokio::test]
async fn a_daemon_that_wants_authentication_is_told_of_with_a_remedy() {
    for (method, name) in [(1, "SASL"), (2, "polkit")] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut daemon = Daemon(theirs);
        let answer = async {
            let call = daemon.expect(Procedure::AuthList).await;
            daemon.answer(&call, Writer::default().u32(1).u32(method)).await;
        };
        let (opened, ()) = tokio::join!(Connection::over(ours, BOUNDS), answer);
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("as root"), "{error}");
    }
}

#[tokio::test]
async fn answers_belong_to_their_calls_in_whatever_order_they_come() {
    let (connection, mut events, mut daemon) = connected().await;
    let work = async {
        let first = daemon.next().await.unwrap();
        let second = daemon.next().await.unwrap();
        daemon.send(&lifecycle(2)).await;
        for call in [second, first] {
            let value = if call.procedure == Procedure::DomainGetState as u32 {
                Writer::default().i32(1).i32(5)
            } else {
                Writer::default().string("<domain/>")
            };
            daemon.answer(&call, value).await;
        }
    };
    let domain = web();
    let (state, xml, ()) =
        tokio::join!(connection.state(&domain), connection.xml(&domain, Definition::Persistent), work);
    assert_eq!((state.unwrap().1, xml.unwrap().as_str()), (5, "<domain/>"));
    let started = Event::Lifecycle { domain, change: Lifecycle::Started, detail: 0 };
    assert_eq!(events.next().await, Some(started));
}

#[tokio::test]
async fn a_refusal_is_told_with_its_meaning() {
    let (connection, _events, mut daemon) = connected().await;
    let refuse = async {
        let call = daemon.expect(Procedure::DomainLookupByName).await;
        daemon.refuse(&call, 42, "Domain not found: \u{1b}[31mweb").await;
    };
    let (answer, ()) = tokio::join!(connection.domain_named("web"), refuse);
    let error = answer.unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::NoDomain));
    assert!(error.to_string().contains("Domain not found:  [31mweb (error 42 of its part 10)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_is_not_taken_for_the_next_ones() {
    let (connection, _events, mut daemon) = connected().await;
    let bound = Duration::from_secs(20);
    let slow = connection.call_within(
        bound,
        "x",
        Procedure::ConnectGetLibVersion,
        Writer::default(),
        wire::lib_version,
    );
    let error = slow.await.unwrap_err();
    assert!(matches!(error, LibvirtError::NoAnswer { .. }), "{error}");
    let work = async {
        // Pings came meanwhile.
        let mut calls = Vec::new();
        while calls.len() < 2 {
            calls.extend(daemon.next().await.filter(|call| call.program == REMOTE));
        }
        daemon.answer(&calls[0], Writer::default().u32(0).u32(1)).await;
        daemon.answer(&calls[1], Writer::default().u32(0).u32(11_003_000)).await;
    };
    let (version, ()) = tokio::join!(connection.version(), work);
    assert_eq!(version.unwrap(), (11, 3, 0));
}

#[tokio::test]
async fn no_more_calls_are_unanswered_at_a_time_than_the_daemon_reads_beside() {
    let (connection, _events, mut daemon) = connected().await;
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move { connection.version().await })
        })
        .collect();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(daemon.next().await.unwrap());
    }
    let fifth = tokio::time::timeout(Duration::from_millis(50), daemon.next()).await;
    assert!(fifth.is_err(), "{fifth:?}");
    while let Some(call) = waiting.pop() {
        daemon.answer(&call, Writer::default().u32(0).u32(1)).await;
        if waiting.len() < 2 {
            waiting
                .extend(tokio::time::timeout(Duration::from_millis(50), daemon.next()).await.ok().flatten());
        }
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn whatever_makes_no_sense_ends_the_connection_with_an_error() {
    let message = |program, kind, body: &[u8]| wire::message(program, 318, kind, 77, body);
    let mut other_version = message(REMOTE, REPLY, &[]);
    other_version[11] = 2;
    let mut no_error = message(REMOTE, REPLY, &[0; 3]);
    no_error[27] = 1;
    for (bytes, word) in [
        (vec![0; 4], "a message of 0 bytes"),
        (vec![0xff; 4], "a message of 4294967295 bytes"),
        (b"HTTP/1.1 400 Bad Request".to_vec(), "a message of 1213486160 bytes"),
        (message(7, REPLY, &[]), "program 0x7"),
        (other_version, "version 2"),
        (message(REMOTE, 0, &[]), "type 0"),
        (message(REMOTE, 5, &[]), "type 5"),
        (message(KEEPALIVE, MESSAGE, &[]), "type 2"),
        (no_error, "an error without a sense: it ends too soon"),
        (message(REMOTE, MESSAGE, &[0; 4]), "an event without a sense: it ends too soon"),
        (
            message(REMOTE, MESSAGE, &[0xff; 12]),
            "an event without a sense: a string or a list in it is too long",
        ),
        ([lifecycle(1), lifecycle(1)].concat()[4..].to_vec(), "a message of"),
        (message(REMOTE, REPLY, &[]), "answered what nobody asked"),
    ] {
        let (connection, mut events, mut daemon) = connected().await;
        daemon.send(&bytes).await;
        assert_eq!(events.next().await, None, "{word}");
        let why = end_of(&connection).await;
        assert!(why.contains(word), "{why}");
        assert_eq!(connection.lost().as_deref(), Some(&*why));
    }
}

#[tokio::test]
async fn an_answer_to_another_procedure_ends_the_connection() {
    let (connection, _events, mut daemon) = connected().await;
    let lie = async {
        let call = daemon.next().await.unwrap();
        daemon.send(&wire::message(REMOTE, 23, REPLY, call.serial, &[0; 8])).await;
    };
    let (answer, ()) = tokio::join!(end_of(&connection), lie);
    assert!(answer.contains("nobody asked"), "{answer}");
}

#[tokio::test]
async fn an_answer_that_is_cut_off_or_has_too_much_is_an_error_of_that_call_alone() {
    let (connection, _events, mut daemon) = connected().await;
    let work = async {
        for returned in [
            Writer::default().u32(0),
            Writer::default().u32(0).u32(1).u32(2),
            Writer::default().u32(0).u32(9_000_000),
        ] {
            let call = daemon.expect(Procedure::ConnectGetLibVersion).await;
            daemon.answer(&call, returned).await;
        }
        let call = daemon.expect(Procedure::ConnectListAllDomains).await;
        daemon.answer(&call, Writer::default().u32(16_385)).await;
    };
    let ask = async {
        for _ in 0..2 {
            let error = connection.version().await.unwrap_err();
            assert!(matches!(error, LibvirtError::Nonsense { .. }), "{error}");
        }
        assert_eq!(connection.version().await.unwrap(), (9, 0, 0));
        assert!(matches!(connection.domains().await, Err(LibvirtError::Nonsense { .. })));
    };
    tokio::join!(work, ask);
}

#[tokio::test]
async fn a_daemon_that_closes_is_told_to_whoever_waits_and_whoever_comes_later() {
    let (connection, mut events, mut daemon) = connected().await;
    let close = async {
        daemon.next().await.unwrap();
        // In the middle of a message.
        daemon.send(&lifecycle(1)[..20]).await;
        drop(daemon);
    };
    let (first, ()) = tokio::join!(end_of(&connection), close);
    assert_eq!(first, "it was closed by libvirt");
    assert_eq!(end_of(&connection).await, first);
    assert_eq!(events.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_gives_no_sign_of_life_is_gone_after_a_bound() {
    let (connection, mut events, mut daemon) = connected().await;
    daemon.send(&lifecycle(1)[..20]).await;
    let started = tokio::time::Instant::now();
    assert_eq!(events.next().await, None);
    let after = started.elapsed();
    assert!(after >= BOUNDS.quiet * 5 && after <= BOUNDS.quiet * 8, "{after:?}");
    assert!(end_of(&connection).await.contains("no sign of life for"), "and not NoAnswer");
    let ping = daemon.next().await.unwrap();
    assert_eq!((ping.program, ping.procedure), (KEEPALIVE, 1), "it was asked for one");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_answers_pings_is_alive_and_gets_answers_to_its_own() {
    let (connection, _events, mut daemon) = connected().await;
    for _ in 0..20 {
        let ping = daemon.next().await.unwrap();
        assert_eq!((ping.program, ping.procedure), (KEEPALIVE, 1));
        daemon.send(&wire::pong()).await;
    }
    daemon.send(&wire::ping()).await;
    let pong = daemon.next().await.unwrap();
    assert_eq!((pong.program, pong.procedure), (KEEPALIVE, 2));
    assert_eq!(connection.lost(), None);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_takes_nothing_is_gone_after_a_bound_however_much_it_says() {
    let (connection, _events, mut daemon) = connected().await;
    let text = "x".repeat(4 << 20);
    let flood = async {
        // Pings are signs of life. Their answers are not read, so that they must not pile up.
        loop {
            if daemon.0.write_all(&wire::ping()).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let call = async {
        let error = connection.define(&text).await.unwrap_err();
        assert!(error.to_string().contains("taken nothing that was sent to it for 25 s"), "{error}");
    };
    tokio::select! { () = flood => {}, () = call => {} }
}

#[tokio::test]
async fn a_text_longer_than_libvirt_takes_is_not_sent() {
    let (connection, _events, _daemon) = connected().await;
    let text = "x".repeat((4 << 20) + 1);
    let error = connection.attach(&web(), &text, Affects::Live).await.unwrap_err();
    assert!(matches!(error, LibvirtError::TooLong { length: 4_194_305, .. }), "{error}");
}

#[tokio::test]
async fn events_that_nobody_fetches_are_counted_and_not_kept() {
    const SENT: u64 = 5000;
    let (connection, mut events, mut daemon) = connected().await;
    for _ in 0..SENT {
        daemon.send(&lifecycle(4)).await;
    }
    // Everything sent before the answer has been taken when that comes.
    let answer = async {
        let call = daemon.next().await.unwrap();
        daemon.answer(&call, Writer::default().u32(0).u32(1)).await;
    };
    let (version, ()) = tokio::join!(connection.version(), answer);
    version.unwrap();
    let mut told = 0;
    let missed = loop {
        match events.next().await.unwrap() {
            Event::Missed(missed) => break missed,
            _ => told += 1,
        }
    };
    assert_eq!(told + missed, SENT);
    assert!(told <= 1024, "{told} were kept");
    // And from then on they come again.
    daemon.send(&lifecycle(5)).await;
    assert!(matches!(events.next().await, Some(Event::Lifecycle { change: Lifecycle::Stopped, .. })));
}

#[tokio::test]
async fn an_event_that_is_not_known_here_is_left_out() {
    let (_connection, mut events, mut daemon) = connected().await;
    daemon.send(&wire::message(REMOTE, 9999, MESSAGE, 0, b"whatever")).await;
    daemon.send(&lifecycle(99)).await;
    assert!(matches!(events.next().await, Some(Event::Lifecycle { change: Lifecycle::Other(99), .. })));
}

#[tokio::test]
async fn the_daemon_is_told_when_nobody_has_the_connection_any_more() {
    let (connection, mut events, mut daemon) = connected().await;
    drop(connection);
    daemon.expect(Procedure::ConnectClose).await;
    assert_eq!(daemon.next().await, None);
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn an_answer_that_comes_twice_or_to_no_procedure_there_is_ends_the_connection() {
    for is_twice in [true, false] {
        let (connection, mut events, mut daemon) = connected().await;
        let answer = async {
            let call = daemon.next().await.unwrap();
            let procedure = if is_twice { call.procedure } else { 1_000_000 };
            let version = Writer::default().u32(0).u32(1).done();
            let answer = wire::message(REMOTE, procedure, REPLY, call.serial, &version);
            daemon.send(&answer).await;
            daemon.send(&answer).await;
        };
        let (version, ()) = tokio::join!(connection.version(), answer);
        assert_eq!(version.is_ok(), is_twice, "{version:?}");
        assert_eq!(events.next().await, None);
        assert!(end_of(&connection).await.contains("answered what nobody asked"));
    }
}

#[tokio::test]
async fn texts_of_megabytes_are_bounded() {
    let (connection, _events, mut daemon) = connected().await;
    let work = async {
        let call = daemon.expect(Procedure::DomainLookupByName).await;
        daemon.refuse(&call, 42, &"\u{1b}x\n".repeat(1 << 20)).await;
        for length in [4 << 20, (4 << 20) + 4] {
            let call = daemon.expect(Procedure::DomainGetXmlDesc).await;
            daemon.answer(&call, Writer::default().string(&"x".repeat(length))).await;
        }
        let call = daemon.expect(Procedure::DomainLookupByName).await;
        let domain = Domain { name: "x".repeat(5 << 20), ..web() };
        daemon.answer(&call, wire::write_domain(Writer::default(), &domain)).await;
    };
    let domain = web();
    let ask = async {
        let error = connection.domain_named("web").await.unwrap_err().to_string();
        assert!(error.len() < 1000 && !error.contains(char::is_control), "{}", error.len());
        assert_eq!(connection.xml(&domain, Definition::Current).await.unwrap().len(), 4 << 20);
        let error = connection.xml(&domain, Definition::Current).await.unwrap_err().to_string();
        assert!(error.contains("makes no sense: a string or a list in it is too long"), "{error}");
        let error = connection.domain_named("web").await.unwrap_err();
        assert!(matches!(error, LibvirtError::Nonsense { .. }), "{error}");
    };
    tokio::join!(work, ask);
    assert_eq!(connection.lost(), None, "each was an error of its call alone");
}

#[tokio::test]
async fn a_message_longer_than_any_is_not_waited_for() {
    let (connection, mut events, mut daemon) = connected().await;
    // Its length alone.
    daemon.send(&((16_u32 << 20) + 1).to_be_bytes()).await;
    assert_eq!(events.next().await, None);
    assert!(end_of(&connection).await.contains("a message of 16777217 bytes"));
}

#[tokio::test]
async fn an_event_of_nonsense_ends_the_connection() {
    let event = |procedure, body: Writer| wire::message(REMOTE, procedure, MESSAGE, 0, &body.done());
    let domain = || wire::write_domain(Writer::default().i32(0), &web());
    for (bytes, word) in [
        (event(318, domain()), "too soon"),
        (event(318, domain().i32(2).i32(0).i32(0)), "more in it"),
        (event(333, domain().u32(2).fixed(&[0xff, 0xfe, 0, 0])), "not UTF-8"),
        (event(333, domain().u32(0x7fff_ffff)), "too long"),
        (event(354, Writer::default().i32(0).u32(1)), "too soon"),
    ] {
        let (connection, mut events, mut daemon) = connected().await;
        daemon.send(&bytes).await;
        assert_eq!(events.next().await, None, "{word}");
        let why = end_of(&connection).await;
        assert!(why.contains("an event without a sense") && why.contains(word), "{why}");
    }
}
