//! What the digests of the members at one index say about this one.

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Too few have said theirs, and those that have agree.
    Open,
    /// A majority of all members has this one's digest.
    Agreed,
    /// They differ, and nobody has a majority so far.
    Split,
    /// A majority has another digest than this member, one and the same.
    Alone,
}

/// Compares `mine` with what others said, in a grid of so many `members`.
pub(super) fn compare(mine: &[u8; 32], others: &[[u8; 32]], members: usize) -> Verdict {
    let majority = members / 2 + 1;
    let count = |digest: &[u8; 32]| others.iter().filter(|other| *other == digest).count();
    if others.iter().any(|other| other != mine && count(other) >= majority) {
        Verdict::Alone
    } else if 1 + count(mine) >= majority {
        Verdict::Agreed
    } else if others.iter().any(|other| other != mine) {
        Verdict::Split
    } else {
        Verdict::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 32] = [1; 32];
    const B: [u8; 32] = [2; 32];
    const C: [u8; 32] = [3; 32];

    #[test]
    fn the_one_of_three_that_differs_is_alone_and_at_one_to_one_nobody_is() {
        for (others, members, expected) in [
            (&[][..], 3, Verdict::Open),
            (&[A], 3, Verdict::Agreed),
            (&[B], 3, Verdict::Split),
            (&[B, B], 3, Verdict::Alone),
            (&[A, B], 3, Verdict::Agreed),
            (&[B, C], 3, Verdict::Split),
            (&[A], 5, Verdict::Open),
            (&[B, B], 5, Verdict::Split),
            (&[B, B, B], 5, Verdict::Alone),
            (&[A, A, B, B], 5, Verdict::Agreed),
            (&[B], 2, Verdict::Split),
        ] {
            assert_eq!(compare(&A, others, members), expected, "{others:?} of {members}");
        }
    }
}
