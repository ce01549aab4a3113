//! Who owns which slot, as a client of Redis Cluster asks: `CLUSTER NODES`, once, before the run.
//!
//! Format: Redis documentation, CLUSTER NODES. A node that gives up a slot later answers what it is
//! asked all the same if it is RangeKV, and with `-MOVED` if it is Redis: that counts as an error.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const SLOTS: usize = 16_384;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Owners {
    /// Nodes that own slots.
    pub nodes: Vec<SocketAddr>,
    /// Position in `nodes` by slot.
    by_slot: Vec<u16>,
}

impl Owners {
    /// Position of a slot's owner.
    pub fn of(&self, slot: u16) -> usize {
        self.by_slot[slot as usize].into()
    }

    /// Two nodes, half of the slots each.
    #[cfg(test)]
    pub fn halves(first: SocketAddr, second: SocketAddr) -> Owners {
        Owners {
            nodes: vec![first, second],
            by_slot: (0..SLOTS)
                .map(|slot| u16::from(slot >= SLOTS / 2))
                .collect(),
        }
    }

    /// From the lines that `asked` has answered.
    fn parse(text: &str, asked: SocketAddr) -> Result<Owners, String> {
        let (mut nodes, mut by_slot) = (Vec::new(), vec![None; SLOTS]);
        for line in text.lines() {
            let bad = || format!("CLUSTER NODES of {asked} says {line:?}");
            let fields: Vec<&str> = line.split(' ').collect();
            // id address flags master ping pong epoch link slot…
            let [_, address, flags, _, _, _, _, _, slots @ ..] = &fields[..] else {
                return Err(bad());
            };
            let slots: Vec<&&str> = slots.iter().filter(|s| !s.starts_with('[')).collect();
            if slots.is_empty() || !flags.split(',').any(|flag| flag == "master") {
                continue;
            }
            let address = address.split(['@', ',']).next().unwrap_or_default();
            let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
            let port = port.parse().map_err(|_| bad())?;
            // A Redis that nobody has talked to knows no address of itself.
            let host = match host.trim_matches(['[', ']']) {
                "" => asked.ip(),
                host => host.parse().map_err(|_| bad())?,
            };
            let position = u16::try_from(nodes.len()).map_err(|_| bad())?;
            nodes.push(SocketAddr::new(host, port));
            for slot in slots {
                let (first, last) = slot.split_once('-').unwrap_or((slot, slot));
                let first: usize = first.parse().map_err(|_| bad())?;
                let last: usize = last.parse().map_err(|_| bad())?;
                let owned = by_slot.get_mut(first..=last).ok_or_else(bad)?;
                owned.fill(Some(position));
            }
        }
        let unowned = by_slot.iter().position(Option::is_none);
        let by_slot: Option<Vec<u16>> = by_slot.into_iter().collect();
        match by_slot {
            Some(by_slot) => Ok(Owners { nodes, by_slot }),
            None => Err(format!(
                "--cluster: {asked} knows no owner of slot {}",
                unowned.unwrap_or_default()
            )),
        }
    }
}

/// Asks the first of `endpoints` that answers.
pub fn owners(endpoints: &[SocketAddr], timeout: Duration) -> Result<Owners, String> {
    let mut error = String::new();
    for endpoint in endpoints {
        match ask(*endpoint, timeout) {
            Ok(text) => return Owners::parse(&text, *endpoint),
            Err(e) => error = format!("--cluster: {endpoint}: {e}"),
        }
    }
    Err(error)
}

fn ask(endpoint: SocketAddr, timeout: Duration) -> Result<String, String> {
    let failed = |e: std::io::Error| e.to_string();
    let mut stream = TcpStream::connect_timeout(&endpoint, timeout).map_err(failed)?;
    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
    stream
        .write_all(b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nNODES\r\n")
        .map_err(failed)?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).map_err(failed)?;
    let line = line.trim_end();
    let length = line.strip_prefix('$').and_then(|n| n.parse().ok());
    // Sixteen thousand slots, each in a range of its own, on nodes with long names.
    let Some(length) = length.filter(|n| *n <= 16 << 20) else {
        return Err(format!("CLUSTER NODES is answered with {line:?}"));
    };
    let mut text = vec![0; length];
    reader.read_exact(&mut text).map_err(failed)?;
    String::from_utf8(text).map_err(|_| "CLUSTER NODES is answered with no text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &str = "10.0.0.9:7000";

    fn parse(text: &str) -> Result<Owners, String> {
        Owners::parse(text, ASKED.parse().unwrap())
    }

    #[test]
    fn slots_belong_to_masters() {
        let owners = parse(
            "a 10.0.0.1:7000@17000,host master - 0 0 1 connected 0-99 101-16383\n\
             b :7001@17001 myself,master - 0 0 2 connected 100 [101->-a]\n\
             c 10.0.0.3:7002@17002 slave a 0 0 1 connected\n",
        )
        .unwrap();
        let nodes = ["10.0.0.1:7000", "10.0.0.9:7001"].map(|n| n.parse().unwrap());
        assert_eq!(owners.nodes, nodes);
        let of = [0, 99, 100, 101, 16_383].map(|slot| owners.of(slot));
        assert_eq!(of, [0, 0, 1, 0, 0]);
    }

    #[test]
    fn what_is_wrong_is_quoted() {
        for (text, said) in [
            ("", "no owner of slot 0"),
            (
                "a 1.1.1.1:1 master - 0 0 1 connected 0-5",
                "no owner of slot 6",
            ),
            ("a 1.1.1.1:1 master - 0 0 1 connected 0-16384", "0-16384"),
            ("a 1.1.1.1:1 master - 0 0 1 connected x", "connected x"),
            ("a host:1 master - 0 0 1 connected 5", "host:1"),
            ("ERR", "\"ERR\""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}
