use std::time::Duration;

use super::*;
use crate::id::PeerId;
use crate::lane::{LaneId, Priority};

#[test]
fn the_defaults_are_valid_and_survive_a_file() {
    let config = Config::default();
    config.validate().unwrap();
    let text = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), config, "{text}");
    assert_eq!(toml::from_str::<Config>("").unwrap(), config);
}

#[test]
fn the_samples_are_valid_and_as_the_functions_have_them() {
    for (text, settings) in [
        (include_str!("../../examples/node/consensus.toml"), Config::consensus()),
        (include_str!("../../examples/node/wide_area.toml"), Config::wide_area()),
        (include_str!("../../examples/node/local_test.toml"), Config::local_test()),
    ] {
        let config: Config = toml::from_str(text).unwrap();
        config.validate().unwrap();
        assert_ne!(config.network, settings.network);
        // All but where it is.
        let Config { network, listen, peers, .. } = config.clone();
        assert_eq!(config, Config { network, listen, peers, ..settings });
    }
}

/// Durations are text with their unit. A number is a count of milliseconds and is named so.
#[test]
fn no_time_in_a_file_is_without_its_unit() {
    fn look(value: &serde_json::Value, path: &str) {
        match value {
            serde_json::Value::Object(fields) => {
                assert!(!fields.contains_key("secs"), "{path} is written as seconds and nanoseconds");
                fields.iter().for_each(|(name, value)| look(value, &format!("{path}.{name}")));
            }
            serde_json::Value::Array(values) => values.iter().for_each(|value| look(value, path)),
            serde_json::Value::Number(_) => {
                let name = path.rsplit('.').next().unwrap();
                let words: Vec<_> = name.split('_').collect();
                let is_time = ["timeout", "interval", "age", "time", "delay", "seen", "remaining", "rtt"]
                    .iter()
                    .any(|word| words.contains(word));
                assert!(!is_time || words.last() == Some(&"ms"), "{path} has no unit");
            }
            _ => {}
        }
    }
    let path = PathConfig { max_age: Some(Duration::from_millis(90_500)), ..PathConfig::default() };
    let config = Config { path, ..Config::consensus() };
    let record = crate::PeerRecord {
        learned: Some(crate::LearnedInterval::new(Duration::from_millis(1_500))),
        last_seen: Some(Duration::from_millis(61_500)),
        ..crate::PeerRecord::new("a:1")
    };
    let ban = crate::Ban::new(PeerId::from_bytes([7; 32]), Some(Duration::from_secs(60)), "flood");
    let conn = crate::KernelSample::default();
    for (name, value) in [
        ("config", serde_json::to_value(&config).unwrap()),
        ("record", serde_json::to_value(&record).unwrap()),
        ("ban", serde_json::to_value(&ban).unwrap()),
        ("kernel", serde_json::to_value(&conn).unwrap()),
    ] {
        look(&value, name);
    }
    let text = toml::to_string(&record).unwrap();
    assert!(text.contains("last_seen = \"1m 1s 500ms\""), "{text}");
    assert!(text.contains("interval = \"1s 500ms\""), "{text}");
    assert_eq!(toml::from_str::<crate::PeerRecord>(&text).unwrap(), record);
}

#[test]
fn a_peer_may_be_known_by_its_id_alone() {
    let id = PeerId::from_bytes([7; 32]);
    let peer = PeerConfig::inbound_only(id);
    assert_eq!((PeerConfig::new(id.to_string()), PeerConfig::from(id)), (peer.clone(), peer.clone()));
    let important = PeerConfig { important: true, ..peer.clone() };
    let text = format!("peers = ['{id}', {{ id = '{id}', important = true }}]");
    let config: Config = toml::from_str(&text).unwrap();
    config.validate().unwrap();
    assert_eq!(config.peers, [peer.clone(), important]);
    assert_eq!(toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(), config);
    for (spoiled, setting, problem) in [
        (PeerConfig::default(), "peer.address", "a peer needs its address, or its id"),
        (PeerConfig::new(format!("{id}@")), "peer.address", "no host:port behind the id"),
        (
            PeerConfig { alternatives: vec!["a:1".into()], ..peer },
            "peer.alternatives",
            "no address before them",
        ),
    ] {
        let error = spoiled.validate("peer").unwrap_err();
        assert!(error.setting() == setting && error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn an_age_survives_a_file() {
    let path = PathConfig { max_age: Some(Duration::from_secs(3600)), ..PathConfig::default() };
    let text = toml::to_string(&path).unwrap();
    assert!(text.contains("max_age = \"1h\""), "{text}");
    assert_eq!(toml::from_str::<PathConfig>(&text).unwrap(), path);
    let text = serde_json::to_string(&PathConfig::default()).unwrap();
    assert_eq!(serde_json::from_str::<PathConfig>(&text).unwrap(), PathConfig::default());
}

/// A call by the name of the type finds the inherent function that serde derives for `remote`.
#[test]
fn an_unknown_setting_is_an_error_also_without_the_trait() {
    let text = "pings = 1";
    let errors = [
        Config::deserialize(toml::Deserializer::parse(text).unwrap()).unwrap_err(),
        PathConfig::deserialize(toml::Deserializer::parse(text).unwrap()).unwrap_err(),
        AdmissionConfig::deserialize(toml::Deserializer::parse(text).unwrap()).unwrap_err(),
        ConductConfig::deserialize(toml::Deserializer::parse(text).unwrap()).unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("unknown field `pings`"), "{error}");
    }
}

#[test]
fn a_bad_setting_is_named() {
    type Spoil = fn(&mut Config);
    let cases: [(&str, Spoil); 32] = [
        ("ack_delay", |config| config.ack_delay = Duration::from_secs(1)),
        // Four times as long would be too much for a duration.
        ("ack_delay", |config| config.ack_delay = Duration::MAX),
        ("network", |config| config.network = "x".repeat(33)),
        ("path.dead_after", |config| config.path.ping_interval = config.path.dead_after),
        ("path.suspect_after", |config| config.path.suspect_after = config.path.dead_after),
        ("path.keepalive_time", |config| config.path.keepalive_time = Duration::from_millis(1500)),
        ("lanes[0].window (urgent)", |config| config.lanes[0].window = 1),
        ("lanes[0].window (urgent)", |config| config.lanes[0].window = usize::MAX),
        ("path.min_ping_interval", |config| config.path.min_ping_interval = Duration::ZERO),
        ("lanes[1].id (urgent)", |config| config.lanes[1].id = crate::URGENT),
        ("request_timeout", |config| config.request_timeout = Duration::from_secs(61)),
        ("resolve_interval", |config| config.resolve_interval = Duration::from_millis(999)),
        ("resolve_interval", |config| config.resolve_interval = Duration::from_secs(86_401)),
        ("max_queued", |config| config.max_queued = 1),
        ("admission.max_inbound", |config| config.admission.max_inbound = 0),
        ("conduct.half_life", |config| config.conduct.half_life = Duration::ZERO),
        ("peers[0].address", |config| config.peers.push(PeerConfig::new("nowhere"))),
        ("peers[0].alternatives[0]", |config| {
            config.peers.push(PeerConfig { alternatives: vec![":1".into()], ..PeerConfig::new("a:1") });
        }),
        ("peers[0].connections", |config| {
            config.peers.push(PeerConfig { connections: Some(4), ..PeerConfig::new("a:1") });
        }),
        ("connections", |config| config.connections = 0),
        ("important_connections", |config| config.important_connections = 4),
        ("max_replacements_per_minute", |config| config.max_replacements_per_minute = 0),
        ("target_peers", |config| config.target_peers = config.max_connections + 1),
        ("max_dials", |config| config.max_dials = 7),
        ("announce", |config| config.announce = Announce::Port(4000)),
        ("announce", |config| {
            config.listen.push(([0, 0, 0, 0], 4000).into());
            config.announce = Announce::Port(0);
        }),
        ("proxy_protocol_from", |config| config.proxy_protocol_from = vec!["192.0.2.0/24".parse().unwrap()]),
        ("proxy_protocol_from[1]", |config| {
            config.listen.push(([0, 0, 0, 0], 4000).into());
            config.proxy_protocol_from =
                vec!["192.0.2.0/24".parse().unwrap(), "::ffff:192.0.2.0/120".parse().unwrap()];
        }),
        ("lanes[0].queue (urgent)", |config| {
            let lane = &mut config.lanes[0];
            (lane.when_full, lane.queue) = (crate::WhenFull::DropOldest, 2 * lane.max_message);
        }),
        ("path.max_segment", |config| config.path.max_segment = Some(535)),
        ("path.max_segment", |config| config.path.max_segment = Some(32_768)),
        ("path.max_age", |config| config.path.max_age = Some(config.path.dead_after)),
    ];
    for (setting, spoil) in cases {
        let mut config = Config::default();
        spoil(&mut config);
        let error = config.validate().unwrap_err();
        assert_eq!(error.setting(), setting, "{error}");
    }
}

#[test]
fn an_address_may_say_who_must_answer_there() {
    let id = PeerId::from_bytes([7; 32]);
    let peer = PeerConfig::new(format!("{id}@[::1]:7000"));
    assert_eq!((peer.id, peer.address.as_str()), (Some(id), "[::1]:7000"));
    peer.validate("peer").unwrap();
    let from = |text: String| toml::from_str::<PeerConfig>(&text).map_err(|error| error.to_string());
    assert_eq!(from(format!("address = '{id}@[::1]:7000'")), Ok(peer.clone()));
    assert_eq!(from(format!("address = '[::1]:7000'\nid = '{id}'")), Ok(peer.clone()));
    assert_eq!(from(toml::to_string(&peer).unwrap()), Ok(peer.clone()));
    assert_eq!(from(format!("address = '{id}@[::1]:7000'\nid = '{id}'")), Ok(peer));
    assert_eq!(from(format!("address = '{id}@'")).map_err(|error| error.contains(NO_ADDRESS)), Err(true));
    let other = PeerId::from_bytes([8; 32]);
    let error = from(format!("address = '{id}@{other}@host:1'")).unwrap_err();
    assert!(error.contains("two ids"), "{error}");
    let error = from(format!("address = '{id}@host:1'\nid = '{other}'")).unwrap_err();
    assert!(error.contains(&id.to_string()) && error.contains(&other.to_string()), "{error}");
    assert!(from("adress = 'host:1'".into()).unwrap_err().contains("adress"));
}

#[test]
fn a_bad_id_in_an_address_is_an_error_that_says_what_is_wrong() {
    let id = PeerId::from_bytes([7; 32]).to_string();
    for (address, problem) in [
        (format!("{}@host:1", &id[1..]), "55 characters"),
        ("@host:1".into(), "0 characters"),
        (format!("{}a@host:1", &id[..55]), "check does not fit"),
    ] {
        let error = PeerConfig::new(&address).validate("peer").unwrap_err();
        assert_eq!(error.setting(), "peer.address");
        assert!(error.to_string().contains(problem), "{error}");
    }
    let unsplit = PeerConfig { address: format!("{id}@host:1"), ..PeerConfig::default() };
    assert!(unsplit.validate("peer").unwrap_err().to_string().contains("PeerConfig::new"));
}

#[test]
fn plaintext_is_chosen_by_name_only() {
    assert_eq!(Config::default().encryption, Encryption::Noise);
    assert_eq!(
        toml::from_str::<Config>("encryption = 'plaintext'").unwrap().encryption,
        Encryption::Plaintext
    );
    assert!(toml::from_str::<Config>("encryption = 'none'").unwrap_err().to_string().contains("plaintext"));
    assert!(toml::from_str::<Config>("encryption = false").is_err());
}

#[test]
fn a_file_with_a_wrong_name_or_duration_is_refused() {
    assert!(toml::from_str::<Config>("netwrok = 'x'").unwrap_err().to_string().contains("netwrok"));
    let error = toml::from_str::<Config>("[path]\nping_interval = 'soon'").unwrap_err().to_string();
    assert!(error.contains("is not a duration such as"), "{error}");
}

#[test]
fn a_scaled_down_path_is_valid() {
    for factor in [1, 2, 10, 20] {
        let config = Config {
            path: PathConfig::default().scaled_down(factor),
            ack_delay: Duration::from_millis(5),
            ..Config::default()
        };
        config.validate().unwrap();
    }
}

#[test]
fn addresses_may_name_their_interface() {
    let text = r#"
        listen = ["0.0.0.0:1", "[::]:2", "[fe80::1%lo]:3", "[fe80::1%1]:4"]
        peers = [{ address = "[fe80::1%lo]:5", alternatives = ["fe80::1%lo:6"] }]
    "#;
    let config: Config = toml::from_str(text).unwrap();
    config.validate().unwrap();
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["0.0.0.0:1", "[::]:2", "[fe80::1%1]:3", "[fe80::1%1]:4"]);
    let again: Config = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    for (bad, named) in [("localhost:1", "localhost:1"), ("[fe80::1%nowhere0]:1", "nowhere0")] {
        let error = toml::from_str::<Config>(&format!("listen = [{bad:?}]")).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

const NO_ADDRESS: &str = "a peer needs its address, as in address = \"host:4000\", or its id";

/// The last line of what `toml` says of it: without the excerpt of the file.
fn problem(text: &str) -> String {
    let error = toml::from_str::<Config>(text).unwrap_err().to_string();
    error.trim_end().lines().last().unwrap_or_default().to_owned()
}

#[test]
fn sizes_may_have_units() {
    let text = r#"
        max_queued = "2GiB"
        max_inbox = 4096
        path = { max_chunk = "64KiB" }
        lanes = [{ id = 1, max_message = "4MiB", window = "10MB", queue = 16_777_216 }]
    "#;
    let config: Config = toml::from_str(text).unwrap();
    assert_eq!((config.max_queued, config.max_inbox, config.path.max_chunk), (2 << 30, 4096, 64 << 10));
    let lane = &config.lanes[0];
    assert_eq!((lane.max_message, lane.window, lane.queue), (4 << 20, 10_000_000, 16 << 20));
    let written = toml::to_string(&config).unwrap();
    assert!(
        written.contains("max_queued = \"2GiB\"") && written.contains("max_inbox = \"4KiB\""),
        "{written}"
    );
    assert_eq!(toml::from_str::<Config>(&written).unwrap(), config);
    let json = r#"{ "max_queued": "2GiB", "path": { "max_chunk": 65536 } }"#;
    let json: Config = serde_json::from_str(json).unwrap();
    assert_eq!((json.max_queued, json.path.max_chunk), (2 << 30, 64 << 10));
}

#[test]
fn a_wrong_type_or_unit_is_told_what_was_expected() {
    let size = "a size such as \"64KiB\" or \"4MiB\", or a number of bytes";
    let time = "a duration such as \"15s\", \"1m 30s\" or \"250ms\"";
    let listen = "an address to listen on such as \"0.0.0.0:4000\", \"[::]:4000\" or \"[fe80::1%eth0]:4000\"";
    let network = "an address or a network such as \"192.0.2.7\", \"192.0.2.0/24\" or \"2001:db8::/32\"";
    let peer = "a peer: an address such as \"host:4000\", or a table with `address` and other settings";
    for (text, expected) in [
        (
            "max_queued = '4M'",
            format!("\"4M\" is not {size}: the unit must be one of B, KiB, MiB, GiB, TiB, kB, MB, GB, TB"),
        ),
        ("max_queued = 1.5", format!("invalid type: floating point `1.5`, expected {size}")),
        ("max_queued = -1", format!("invalid value: integer `-1`, expected {size}")),
        ("path.max_chunk = true", format!("invalid type: boolean `true`, expected {size}")),
        ("path.ping_interval = 15", format!("invalid type: integer `15`, expected {time}")),
        ("path.max_age = 15", format!("invalid type: integer `15`, expected {time}")),
        ("conduct.ban_time = 3600", format!("invalid type: integer `3600`, expected {time}")),
        ("path.ping_interval = 'soon'", format!("\"soon\" is not {time}: expected number at 0")),
        (
            "conduct.ban_time = '5M'",
            format!("\"5M\" is not {time}: M may be minutes or months, write \"m\" or \"months\""),
        ),
        ("listen = 4000", format!("invalid type: integer `4000`, expected {listen}")),
        ("listen = ['[::]:1', 'localhost:1']", format!("\"localhost:1\" is not {listen}")),
        ("listen = 'localhost:1'", format!("\"localhost:1\" is not {listen}")),
        ("admission.allow_addresses = ['10.0.0.300']", format!("\"10.0.0.300\" is not {network}")),
        ("admission.exempt = ['10.0.0.0/33']", format!("\"10.0.0.0/33\" is not {network}")),
        ("peers = ['a:1', 15]", format!("invalid type: integer `15`, expected {peer}")),
        ("peers = 15", format!("invalid type: integer `15`, expected {peer}")),
        ("peers = [{ important = true }]", NO_ADDRESS.to_owned()),
        ("peers = ''", NO_ADDRESS.to_owned()),
    ] {
        assert_eq!(problem(text), expected, "{text}");
    }
}

#[test]
fn an_error_in_a_file_points_at_the_entry() {
    let text = "[[peers]]\naddress = 'a:1'\n\n[[peers]]\naddress = 'b:1'\nconnections = 'two'\n";
    let error = toml::from_str::<Config>(text).unwrap_err().to_string();
    assert!(error.starts_with("TOML parse error at line 6, column 15\n"), "{error}");
    let text = "listen = ['[::]:1', 'localhost:1']";
    let error = toml::from_str::<Config>(text).unwrap_err().to_string();
    assert!(error.starts_with("TOML parse error at line 1, column 21\n"), "{error}");
    let id = PeerId::from_bytes([7; 32]);
    let other = PeerId::from_bytes([8; 32]);
    let text = format!("[[peers]]\naddress = 'a:1'\n\n[[peers]]\naddress = '{id}@b:1'\nid = '{other}'");
    let error = toml::from_str::<Config>(&text).unwrap_err().to_string();
    assert!(error.starts_with("TOML parse error at line 4, column 1\n"), "{error}");
}

#[test]
fn a_bad_peer_is_named_with_its_index() {
    let config: Config = toml::from_str(
        r#"
        peers = ["a:1", "b:2", { address = "c:3", alternatives = ["d:4", "e"] }]
        "#,
    )
    .unwrap();
    let error = config.validate().unwrap_err().to_string();
    assert_eq!(error, "setting peers[2].alternatives[1]: \"e\" is not of the form host:port");
    let config: Config = toml::from_str("peers = ['a:1', 'b']").unwrap();
    let error = config.validate().unwrap_err().to_string();
    assert_eq!(error, "setting peers[1].address: \"b\" is not of the form host:port");
    let text = "peers = ['a:1', { address = 'b:1', path = { dead_after = '15s' } }]";
    let error = toml::from_str::<Config>(text).unwrap().validate().unwrap_err();
    assert_eq!(error.setting(), "peers[1].path.dead_after");
}

#[test]
fn an_only_entry_and_a_bare_address_may_stand_alone() {
    let id = PeerId::from_bytes([7; 32]);
    let text = format!(
        r#"
        listen = "0.0.0.0:4000"
        peers = "{id}@a:1"
        [admission]
        allow_peers = "{id}"
        allow_addresses = ["10.0.0.1", "2001:db8::1", "192.0.2.0/24"]
        deny_addresses = "10.0.0.2"
        "#
    );
    let config: Config = toml::from_str(&text).unwrap();
    config.validate().unwrap();
    assert_eq!(config.listen, ["0.0.0.0:4000".parse().unwrap()]);
    assert_eq!(config.peers, [PeerConfig { id: Some(id), ..PeerConfig::new("a:1") }]);
    let admission = &config.admission;
    assert_eq!(admission.allow_peers, [id]);
    let allowed: Vec<_> = admission.allow_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["10.0.0.1/32", "2001:db8::1/128", "192.0.2.0/24"]);
    assert_eq!(admission.deny_addresses, ["10.0.0.2/32".parse().unwrap()]);
    assert_eq!(toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(), config);
    let text = "[peers]\naddress = 'a:1'\nalternatives = 'b:1'";
    let config: Config = toml::from_str(text).unwrap();
    assert_eq!(config.peers, [PeerConfig { alternatives: vec!["b:1".into()], ..PeerConfig::new("a:1") }]);
}

#[test]
fn a_wrong_name_is_told_the_right_one() {
    for (text, expected) in [
        ("netwrok = 'x'", "unknown setting `netwrok`, did you mean `network`?"),
        ("path.ping_intervall = '15s'", "unknown setting `ping_intervall`, did you mean `ping_interval`?"),
        ("peers = [{ adress = 'a:1' }]", "unknown setting `adress`, did you mean `address`?"),
        (
            "peers = [{ address = 'a:1', path = { dead_afer = '1s' } }]",
            "unknown setting `dead_afer`, did you mean `dead_after`?",
        ),
        ("lanes = [{ id = 1, max_mesage = 1 }]", "unknown setting `max_mesage`, did you mean `max_message`?"),
        ("admission.deny_adresses = []", "unknown setting `deny_adresses`, did you mean `deny_addresses`?"),
        ("conduct.bantime = '1h'", "unknown setting `bantime`, did you mean `ban_time`?"),
        (
            "lanes = [{ id = 1, colour = 'blue' }]",
            "unknown setting `colour`, expected one of `id`, `remove`, `priority`, `max_message`, `window`, \
             `max_untaken`, `queue`, `when_full`, `ack_mode`, `slot`",
        ),
        ("path = 15", "invalid type: integer `15`, expected a table of settings"),
    ] {
        assert_eq!(problem(text), expected, "{text}");
    }
    let text = "[[peers]]\naddress = 'a:1'\n\n[[peers]]\naddress = 'b:1'\nimportent = true\n";
    let error = toml::from_str::<Config>(text).unwrap_err().to_string();
    assert!(error.starts_with("TOML parse error at line 6, column 1\n"), "{error}");
    let error = serde_json::from_str::<Config>("{ \"netwrok\": \"x\" }").unwrap_err().to_string();
    assert_eq!(error, "unknown setting `netwrok`, did you mean `network`? at line 1 column 11");
    // However long the name is.
    let long = "x".repeat(100_000);
    assert!(problem(&format!("{long} = 1")).len() < 1000);
}

#[test]
fn one_lane_is_changed_without_writing_the_others() {
    let of = |text: &str| toml::from_str::<Config>(text).map(|config| config.lanes);
    let bulk = LaneConfig { max_message: 64 << 20, window: 65 << 20, ..LaneConfig::bulk() };
    assert_eq!(
        of("[[lanes]]\nid = 2\nmax_message = '64MiB'\nwindow = '65MiB'").unwrap(),
        [bulk, LaneConfig::urgent(), LaneConfig::normal()]
    );
    let own = LaneConfig { id: LaneId(9), priority: Priority::Urgent, ..LaneConfig::default() };
    let added = of("lanes = [{ id = 9, priority = 'urgent' }]").unwrap();
    assert_eq!(added[0], own);
    assert_eq!(added[1..], LaneConfig::defaults());
    let newest = of("lanes = [{ id = 0, when_full = 'drop_oldest' }]").unwrap();
    assert_eq!(newest[0], LaneConfig { when_full: crate::WhenFull::DropOldest, ..LaneConfig::urgent() });
    assert_eq!(of("lanes = []").unwrap(), LaneConfig::defaults());
}

#[test]
fn a_default_lane_is_removed_by_saying_so() {
    let text = "lanes = [{ id = 2, remove = true }, { id = 0, remove = true }]";
    let config: Config = toml::from_str(text).unwrap();
    config.validate().unwrap();
    assert_eq!(config.lanes, [LaneConfig::normal()]);
    // A setting that is missing is still missing after it was written and read.
    assert_eq!(toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(), config);
    let mut config = Config { lanes: vec![LaneConfig::bulk(), LaneConfig::urgent()], ..Config::default() };
    config.lanes[0].slot = Some(2);
    assert_eq!(toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(), config);
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
    for (text, expected) in [
        ("lanes = [{ id = 9, remove = true }]", "lanes[0].remove: 9 is no default lane"),
        ("lanes = [{ id = 1 }, { id = 1, slot = 0 }]", "lanes[1].id: 1 is listed already"),
        ("lanes = [{ slot = 0 }]", "missing field `id`"),
    ] {
        assert_eq!(problem(text), expected, "{text}");
    }
}
