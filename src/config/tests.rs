use std::time::Duration;

use super::*;
use crate::id::PeerId;

#[test]
fn the_defaults_are_valid_and_survive_a_file() {
    let config = Config::default();
    config.validate().unwrap();
    let text = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), config, "{text}");
    assert_eq!(toml::from_str::<Config>("").unwrap(), config);
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

#[test]
fn a_bad_setting_is_named() {
    type Spoil = fn(&mut Config);
    let cases: [(&str, Spoil); 25] = [
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
        ("max_queued", |config| config.max_queued = 1),
        ("admission.max_inbound", |config| config.admission.max_inbound = 0),
        ("conduct.half_life", |config| config.conduct.half_life = Duration::ZERO),
        ("peers.address", |config| config.peers.push(PeerConfig::new("nowhere"))),
        ("peers.alternatives", |config| {
            config.peers.push(PeerConfig { alternatives: vec![":1".into()], ..PeerConfig::new("a:1") });
        }),
        ("peers.connections", |config| {
            config.peers.push(PeerConfig { connections: Some(4), ..PeerConfig::new("a:1") });
        }),
        ("connections", |config| config.connections = 0),
        ("important_connections", |config| config.important_connections = 4),
        ("max_replacements_per_minute", |config| config.max_replacements_per_minute = 0),
        ("target_peers", |config| config.target_peers = config.max_connections + 1),
        ("max_dials", |config| config.max_dials = 7),
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
    peer.validate().unwrap();
    let from = |text: String| toml::from_str::<PeerConfig>(&text).map_err(|error| error.to_string());
    assert_eq!(from(format!("address = '{id}@[::1]:7000'")), Ok(peer.clone()));
    assert_eq!(from(format!("address = '[::1]:7000'\nid = '{id}'")), Ok(peer.clone()));
    assert_eq!(from(toml::to_string(&peer).unwrap()), Ok(peer.clone()));
    assert_eq!(from(format!("address = '{id}@[::1]:7000'\nid = '{id}'")), Ok(peer));
    let other = PeerId::from_bytes([8; 32]);
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
        let error = PeerConfig::new(&address).validate().unwrap_err();
        assert_eq!(error.setting(), "peers.address");
        assert!(error.to_string().contains(problem), "{error}");
    }
    let unsplit = PeerConfig { address: format!("{id}@host:1"), ..PeerConfig::default() };
    assert!(unsplit.validate().unwrap_err().to_string().contains("PeerConfig::new"));
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
    assert!(error.contains("is not a duration"), "{error}");
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
