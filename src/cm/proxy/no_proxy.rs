//! `NO_PROXY`: the hosts that are reached without the proxy, by curl's rules.

use std::net::IpAddr;

/// Whether a list covers a host, which is a name or an address, an IPv6 one in brackets.
///
/// The list has names, which cover what ends in them too; addresses, perhaps with the length of a
/// prefix; or is `*`. Commas or blanks stand between them.
pub(super) fn covers(list: &str, host: &str) -> bool {
    let host = bare(host);
    let address: Option<IpAddr> = host.parse().ok();
    let mut entries = list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
    if list.trim() == "*" {
        return true;
    }
    entries.any(|entry| match address {
        Some(address) => covers_address(bare(entry), address),
        None => covers_name(entry, host),
    })
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn covers_name(entry: &str, host: &str) -> bool {
    let entry = entry.trim_start_matches('.').trim_end_matches('.').to_ascii_lowercase();
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let above = host.strip_suffix(&entry).filter(|_| !entry.is_empty());
    above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

fn covers_address(entry: &str, host: IpAddr) -> bool {
    let (network, bits) = match entry.split_once('/') {
        Some((network, bits)) => (network, bits.parse().ok()),
        None => (entry, Some(128)),
    };
    let (Ok(network), Some(bits)) = (bare(network).parse(), bits) else { return false };
    match (network, host) {
        (IpAddr::V4(network), IpAddr::V4(host)) => {
            let different = network.to_bits() ^ host.to_bits();
            different.leading_zeros() >= bits.min(32)
        }
        (IpAddr::V6(network), IpAddr::V6(host)) => {
            let different = network.to_bits() ^ host.to_bits();
            different.leading_zeros() >= bits.min(128)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_covers_itself_and_what_ends_in_it() {
        for list in ["example.com", ".example.com", "a, EXAMPLE.com.", "x example.com,y"] {
            for host in ["example.com", "cm.example.com", "CM.Example.Com."] {
                assert!(covers(list, host), "{list} {host}");
            }
            for host in ["notexample.com", "example.com.evil", "com", "10.0.0.1"] {
                assert!(!covers(list, host), "{list} {host}");
            }
        }
    }

    #[test]
    fn an_address_covers_itself_and_a_network_what_is_in_it() {
        for (list, host) in [
            ("10.0.0.1", "10.0.0.1"),
            ("192.168.0.0/16", "192.168.7.9"),
            ("10.0.0.0/0", "8.8.8.8"),
            ("::1", "[::1]"),
            ("[::1]", "[::1]"),
            ("2001:db8::/32", "[2001:db8:1::9]"),
        ] {
            assert!(covers(list, host), "{list} {host}");
        }
        for (list, host) in [
            ("10.0.0.1", "10.0.0.10"),
            ("192.168.0.0/16", "192.169.0.1"),
            ("0.0.0.1", "[::1]"),
            ("2001:db8::/32", "[2001:db9::1]"),
            ("10.0.0.0/x", "10.0.0.0"),
            ("0.0.1", "10.0.0.1"),
        ] {
            assert!(!covers(list, host), "{list} {host}");
        }
    }

    #[test]
    fn an_asterisk_alone_covers_everything_and_nothing_covers_nothing() {
        for host in ["cm.example.com", "10.0.0.1", "[::1]"] {
            assert!(covers(" * ", host));
            assert!(!covers("", host) && !covers(" , ", host) && !covers(".", host));
            assert!(!covers("*.example.com", host));
        }
    }
}
