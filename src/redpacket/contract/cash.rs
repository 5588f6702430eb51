//! The calls of a packet of money: make, grab, open, look.

use super::shape::{Field, Shape, has, may};
use super::{Gives, Operation, User};
use crate::redpacket::model::Code;

/// A share, to everybody who knows the packet.
pub(super) const SHARE: &[Field] = &[
    has("user_id", Shape::Id, "Whose."),
    has("rank", Shape::Whole(1), "Which one it was, from 1."),
    has("amount_fen", Shape::Whole(1), "How much, in fen."),
    has("opened_at", Shape::Moment, "When."),
];

/// A share, to who has it.
pub(super) const MINE: &[Field] = &[
    has("amount_fen", Shape::Whole(1), "How much, in fen."),
    has("rank", Shape::Whole(1), "Which one it was, from 1."),
    has("order_no", Shape::OrderNo, "The number under which it is booked."),
    has("opened_at", Shape::Moment, "When."),
    may(
        "state",
        Shape::Word(&["ACCEPTED", "DELIVERING", "RETRY_WAIT", "DELIVERED", "DEAD", "COMPENSATED"]),
        "Where its booking stands.",
    ),
];

/// A packet, and with it what `more` says.
macro_rules! packet {
    ($($more:expr),* $(,)?) => {
        &[
            has("packet_id", Shape::Id, "Its name, which is the key that it was made with."),
            has("activity_id", Shape::Id, "The campaign."),
            has("state", Shape::Word(&["FUNDED", "OPEN", "EXHAUSTED", "EXPIRED", "REFUNDED"]), "Where it stands."),
            has("mode", Shape::Word(&["double_mean", "pre_split", "fixed"]), "How it is split."),
            has("total_fen", Shape::Whole(1), "What is in it in all, in fen."),
            has("count", Shape::Whole(1), "In how many shares."),
            has("opened_fen", Shape::Whole(0), "What has been opened, in fen."),
            has("opened", Shape::Whole(0), "How many shares have been opened."),
            has("refund_fen", Shape::Whole(0), "What went back to the payer, in fen."),
            has("created_at", Shape::Moment, "When it was made."),
            has("expires_at", Shape::Moment, "Until when it may be opened."),
            $($more),*
        ]
    };
}

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/v1/packets",
        name: "createPacket",
        about: "Makes a packet out of the user's account. The same key is the same packet.",
        service: "packet",
        user: User::Must,
        asks: &[],
        body: &[
            has("total_fen", Shape::Whole(1), "What is in it, in fen."),
            has("count", Shape::Whole(1), "In how many shares; each has a fen at least."),
            may(
                "mode",
                Shape::Word(&["double_mean", "random", "pre_split", "fixed"]),
                "How it is split; `random` is another word for `double_mean`.",
            ),
            may("expire_s", Shape::Whole(1), "How long it may be opened, in s; a day where it is not said."),
            may(
                "idempotency_key",
                Shape::Id,
                "Its name, of 16 characters at least; or the header of that name says it.",
            ),
            may("activity_id", Shape::Id, "The campaign."),
        ],
        gives: &[Gives { codes: &[Code::Ok], fields: packet!() }],
        refuses: &[Code::BadRequest, Code::Unfunded, Code::KeyConflict, Code::Unavailable, Code::Deadline],
    },
    Operation {
        method: "post",
        path: "/v1/packets/{packet_id}/grab",
        name: "grabPacket",
        about: "Whether there is something to open, and the leave to do it. Answered from memory.",
        service: "packet",
        user: User::Must,
        asks: &[has("packet_id", Shape::Id, "The packet.")],
        body: &[],
        gives: &[
            Gives {
                codes: &[Code::Ok],
                fields: &[
                    has("grab_token", Shape::Text, "The leave, for this user and this packet."),
                    has("left_hint", Shape::Or(&Shape::Whole(0)), "How many shares are left, roughly."),
                    has("expires_at", Shape::Moment, "Until when it may be used."),
                ],
            },
            Gives { codes: &[Code::AlreadyClaimed], fields: MINE },
        ],
        refuses: &[Code::BadRequest, Code::NotFound, Code::SoldOut, Code::Expired, Code::Unavailable, Code::Deadline],
    },
    Operation {
        method: "post",
        path: "/v1/packets/{packet_id}/open",
        name: "openPacket",
        about: "Takes a share. A user has one, however often they ask.",
        service: "packet",
        user: User::Must,
        asks: &[has("packet_id", Shape::Id, "The packet.")],
        body: &[
            has("grab_token", Shape::Text, "The leave that a grab gave."),
            may("idempotency_key", Shape::Id, "The caller's own key."),
        ],
        gives: &[Gives { codes: &[Code::Ok, Code::AlreadyClaimed], fields: MINE }],
        refuses: &[
            Code::BadRequest,
            Code::NotEligible,
            Code::NotFound,
            Code::SoldOut,
            Code::Expired,
            Code::KeyConflict,
            Code::Unavailable,
            Code::Deadline,
        ],
    },
    Operation {
        method: "get",
        path: "/v1/packets/{packet_id}",
        name: "lookAtPacket",
        about: "A packet, a page of its shares in the order in which they were opened, and the asker's own.",
        service: "packet",
        user: User::May,
        asks: &[
            has("packet_id", Shape::Id, "The packet."),
            may("after", Shape::Whole(0), "The rank behind which the page begins."),
            may("limit", Shape::Whole(1), "How many shares, at most 200; 50 where it is not said."),
        ],
        body: &[],
        gives: &[Gives {
            codes: &[Code::Ok],
            fields: packet!(
                has("shares", Shape::List(&Shape::Named("Share")), "The page."),
                has("next_after", Shape::Or(&Shape::Whole(1)), "Where the next one begins; null where there is none."),
                has("mine", Shape::Or(&Shape::Named("Mine")), "The asker's share."),
            ),
        }],
        refuses: &[Code::BadRequest, Code::NotFound, Code::Unavailable, Code::Deadline],
    },
];
