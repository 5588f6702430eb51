//! What a configuration means, and that reading one never panics.

use super::*;

fn read(text: &str) -> Result<Config, Findings> {
    parse(text, Path::new("/etc/springtide/springtide.toml"))
}

#[test]
fn the_north_star_is_understood() {
    let config =
        read(include_str!("../../../tests/golden/config/ok-north-star.toml")).unwrap_or_else(|f| panic!("{f}"));
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    assert_eq!(config.datacenters.len(), 3);
    assert_eq!(config.services[0].backends.len(), 4);
}
