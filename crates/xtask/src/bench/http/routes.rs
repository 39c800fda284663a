//! The routes of a measurement: ten paths of each host. What a proxy is configured with, and what clients ask for. No socket.

/// How many routes a host has.
const PATHS: usize = 10;

/// The host that a route matches.
pub(super) fn host(route: usize) -> String {
    format!("h{:05}.bench.example", route / PATHS)
}

/// The path, a prefix, that a route matches.
pub(super) fn path(route: usize) -> String {
    format!("/p{}", route % PATHS)
}

/// The routes of each host in turn.
pub(super) fn by_host(routes: usize) -> impl Iterator<Item = (String, Vec<String>)> {
    (0..routes).step_by(PATHS).map(move |first| {
        let last = routes.min(first + PATHS);
        (host(first), (first..last).map(path).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_one_path_of_one_host() {
        let pairs: Vec<_> = (0..25).map(|route| (host(route), path(route))).collect();
        let listed: Vec<_> =
            by_host(25).flat_map(|(host, paths)| paths.into_iter().map(move |path| (host.clone(), path))).collect();
        assert_eq!(pairs, listed);
        assert_eq!(pairs.iter().collect::<std::collections::BTreeSet<_>>().len(), 25);
    }
}
