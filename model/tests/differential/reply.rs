//! Replies taken apart, to be compared where Redis leaves open what they are exactly.

use bytes::Bytes;

/// A reply: what kind, and what is in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Tree {
    /// The line of a simple reply, with its kind, or of a bulk string, `$`.
    Leaf(u8, Bytes),
    /// `*`, `~`, `%` (keys and values in turn), or a null array.
    Node(u8, Vec<Tree>),
}

/// Takes a whole reply apart.
pub fn parse(reply: &[u8]) -> Tree {
    let mut rest = reply;
    let tree = take(&mut rest);
    assert!(rest.is_empty(), "a single reply: {reply:?}");
    tree
}

fn take(rest: &mut &[u8]) -> Tree {
    let end = rest
        .windows(2)
        .position(|two| two == b"\r\n")
        .expect("a line");
    let (kind, line) = (rest[0], &rest[1..end]);
    *rest = &rest[end + 2..];
    let length = || std::str::from_utf8(line).unwrap().parse::<i64>().unwrap();
    match kind {
        b'$' if length() >= 0 => {
            let (text, after) = rest.split_at(length() as usize);
            *rest = &after[2..];
            Tree::Leaf(kind, Bytes::copy_from_slice(text))
        }
        b'*' | b'~' | b'%' if length() >= 0 => {
            let times = if kind == b'%' { 2 } else { 1 };
            let elements = (0..length() * times).map(|_| take(rest)).collect();
            Tree::Node(kind, elements)
        }
        b'$' => Tree::Leaf(b'-', Bytes::from_static(b"nil")),
        _ => Tree::Leaf(kind, Bytes::copy_from_slice(line)),
    }
}

impl Tree {
    /// All bulk strings in it.
    pub fn bulks(&self) -> Vec<Bytes> {
        match self {
            Tree::Leaf(b'$', text) => vec![text.clone()],
            Tree::Leaf(..) => Vec::new(),
            Tree::Node(_, elements) => elements.iter().flat_map(Tree::bulks).collect(),
        }
    }

    /// The elements sorted, `together` at a time.
    pub fn sorted(self, together: usize) -> Tree {
        let Tree::Node(kind, elements) = self else {
            return self;
        };
        let mut groups: Vec<Vec<Tree>> = elements.chunks(together).map(<[Tree]>::to_vec).collect();
        groups.sort();
        Tree::Node(kind, groups.concat())
    }

    /// The same with the second of its elements sorted: a page of a scan.
    pub fn page_sorted(self, together: usize) -> Tree {
        match self {
            Tree::Node(kind, mut elements) if elements.len() == 2 => {
                let found = elements.remove(1).sorted(together);
                elements.push(found);
                Tree::Node(kind, elements)
            }
            other => other,
        }
    }

    /// How many and what kinds, but not which.
    pub fn shape(self) -> Tree {
        match self {
            Tree::Leaf(b'-', text) => Tree::Leaf(b'-', text),
            Tree::Leaf(kind, _) => Tree::Leaf(kind, Bytes::new()),
            Tree::Node(kind, elements) => {
                Tree::Node(kind, elements.into_iter().map(Tree::shape).collect())
            }
        }
    }

    /// The same without the sign of zeros that stand for themselves.
    pub fn without_negative_zeros(self) -> Tree {
        match self {
            Tree::Leaf(kind, text) if text[..] == b"-0"[..] => {
                Tree::Leaf(kind, Bytes::from_static(b"0"))
            }
            Tree::Node(kind, elements) => {
                let elements = elements.into_iter().map(Tree::without_negative_zeros);
                Tree::Node(kind, elements.collect())
            }
            leaf => leaf,
        }
    }

    /// Whether both are the same but for how many digits doubles are written with: Redis 7.0
    /// writes 17, 7.2 as few as it takes.
    pub fn same_numbers(&self, theirs: &Tree) -> bool {
        match (self, theirs) {
            (Tree::Leaf(a, ours), Tree::Leaf(b, theirs)) => {
                a == b && (ours == theirs || same_double(ours, theirs))
            }
            (Tree::Node(a, ours), Tree::Node(b, theirs)) => {
                a == b
                    && ours.len() == theirs.len()
                    && ours.iter().zip(theirs).all(|(a, b)| a.same_numbers(b))
            }
            _ => false,
        }
    }
}

fn same_double(ours: &[u8], theirs: &[u8]) -> bool {
    let number = |text| std::str::from_utf8(text).ok()?.parse::<f64>().ok();
    let digits = theirs.iter().filter(|b| b.is_ascii_digit()).count();
    let long = digits >= 17 || theirs.contains(&b'e');
    long && number(ours).is_some() && number(ours) == number(theirs)
}
