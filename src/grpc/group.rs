//! Which group a request is about.

use rangekv_proto::{RangeId, PLACEMENT_RANGE};
use tonic::metadata::MetadataMap;
use tonic::Status;

/// Names the group where the request does not.
pub const HEADER: &str = "x-raft-group";

/// The group of a request with `field` and `metadata`; none, or 0, is the placement driver's.
pub fn group(metadata: &MetadataMap, field: u64) -> Result<RangeId, Status> {
    let header = match metadata.get(HEADER) {
        None => 0,
        Some(value) => {
            let number = value
                .to_str()
                .ok()
                .and_then(|text| text.trim().parse().ok());
            number.ok_or_else(|| {
                Status::invalid_argument(format!("{HEADER}: {value:?} is no group's number"))
            })?
        }
    };
    match (field, header) {
        (0, 0) => Ok(PLACEMENT_RANGE),
        (id, 0) | (0, id) => Ok(RangeId(id)),
        (field, header) if field == header => Ok(RangeId(field)),
        (field, header) => Err(Status::invalid_argument(format!(
            "group_id is {field}, and {HEADER} is {header}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_or_header() {
        for (field, header, expected) in [
            (0, None, Ok(1)),
            (7, None, Ok(7)),
            (0, Some("7"), Ok(7)),
            (7, Some(" 7 "), Ok(7)),
            (0, Some("0"), Ok(1)),
            (7, Some("8"), Err("group_id is 7, and x-raft-group is 8")),
            (0, Some("n1"), Err("\"n1\" is no group's number")),
            (0, Some("-1"), Err("no group's number")),
        ] {
            let mut metadata = MetadataMap::new();
            if let Some(header) = header {
                metadata.insert(HEADER, header.parse().unwrap());
            }
            match (group(&metadata, field), expected) {
                (Ok(group), Ok(expected)) => assert_eq!(group.0, expected),
                (Err(error), Err(expected)) => {
                    assert!(error.message().contains(expected), "{error}");
                }
                (got, _) => panic!("{field} {header:?}: {got:?}"),
            }
        }
    }
}
