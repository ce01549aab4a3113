//! The catalog of DynamoDB tables, a part of the placement state.
//!
//! Invariants: names are unique, a deleting table's name too until its records are gone; ids come
//! from the cluster's window and are never reused; a record's revision grows with each change, and
//! a change that was decided by an older revision is refused; each change raises the catalog
//! version.

use crate::keys;
use crate::state::{allocate_ids, refuse, write_counter, Refused};
use prost::Message;
use rangekv_model::eval::{Txn, View};
use rangekv_proto::internal::placement_command::Kind;
use rangekv_proto::internal::{PlacementState, TableRecord};
use std::ops::ControlFlow;

/// Tables of a cluster at most (the quota of an AWS account, "Service quotas").
pub const TABLES_MAX: usize = 10_000;

/// Evaluates a command about tables; answers those that it is about.
pub(crate) fn execute(
    state: &PlacementState,
    kind: Kind,
    txn: &mut Txn<'_>,
) -> Result<Vec<TableRecord>, Refused> {
    let changed = match kind {
        Kind::ReadTables(_) => return read_tables(txn),
        Kind::CreateTable(c) => create(state, c.record.unwrap_or_default(), txn)?,
        Kind::UpdateTable(c) => update(c.record.unwrap_or_default(), txn)?,
        Kind::RemoveTable(c) => {
            let tables = read_tables(txn)?;
            let Some(table) = tables.into_iter().find(|t| t.id == c.id) else {
                // Done before.
                return Ok(Vec::new());
            };
            if !table.deleting {
                return refuse(format!("table {} is in use", table.name));
            }
            txn.delete(keys::table(&table.name));
            table
        }
        other => return refuse(format!("{other:?} is not about tables")),
    };
    write_counter(txn, keys::CATALOG_VERSION, state.catalog_version + 1);
    Ok(vec![changed])
}

fn create(
    state: &PlacementState,
    record: TableRecord,
    txn: &mut Txn<'_>,
) -> Result<TableRecord, Refused> {
    if record.name.is_empty() || record.partition_name.is_empty() {
        return refuse("a table has a name and a partition key");
    }
    if txn.get(&keys::table(&record.name)).is_some() {
        return refuse(format!("table {} exists", record.name));
    }
    if read_tables(txn)?.len() >= TABLES_MAX {
        return refuse(format!(
            "there are {TABLES_MAX} tables, the most there may be"
        ));
    }
    let Ok(id) = u32::try_from(allocate_ids(state, 1, txn)?) else {
        return refuse("the ids of tables are used up");
    };
    let record = TableRecord {
        id,
        revision: 1,
        deleting: false,
        ..record
    };
    put(&record, txn);
    Ok(record)
}

fn update(record: TableRecord, txn: &mut Txn<'_>) -> Result<TableRecord, Refused> {
    let current = match txn.get(&keys::table(&record.name)) {
        Some(bytes) => decode(&bytes)?,
        None => return refuse(format!("there is no table {}", record.name)),
    };
    if (current.id, current.revision) != (record.id, record.revision) {
        return refuse(format!(
            "table {} was changed meanwhile; try again",
            record.name
        ));
    }
    if current.deleting {
        return refuse(format!("table {} is being deleted", record.name));
    }
    let record = TableRecord {
        partition_name: current.partition_name,
        partition_type: current.partition_type,
        sort_name: current.sort_name,
        sort_type: current.sort_type,
        revision: current.revision + 1,
        ..record
    };
    put(&record, txn);
    Ok(record)
}

fn put(record: &TableRecord, txn: &mut Txn<'_>) {
    txn.put(keys::table(&record.name), record.encode_to_vec());
}

fn decode(bytes: &[u8]) -> Result<TableRecord, Refused> {
    TableRecord::decode(bytes).map_err(|e| Refused(format!("a table's record is unreadable: {e}")))
}

fn read_tables(view: &dyn View) -> Result<Vec<TableRecord>, Refused> {
    let mut tables = Vec::new();
    view.scan(keys::TABLES, keys::TABLES_END, &mut |_, value| {
        tables.push(decode(value));
        ControlFlow::Continue(())
    });
    tables.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::state::{encode, PlacementModel};
    use bytes::Bytes;
    use prost::Message;
    use rangekv_model::eval::{Context, Evaluator, Txn};
    use rangekv_proto::internal::placement_command::{
        CreateTable, Kind, ReadTables, RemoveTable, UpdateTable,
    };
    use rangekv_proto::internal::{PlacementReply, TableRecord};
    use std::collections::BTreeMap;

    fn run(records: &mut BTreeMap<Bytes, Bytes>, kind: Kind) -> Result<Vec<TableRecord>, String> {
        let context = Context {
            now_ms: 1,
            seed: 0,
            start: b"",
            end: crate::keys::PLACEMENT_END,
        };
        let before = records.clone();
        let mut txn = Txn::new(&before);
        let reply = PlacementModel.evaluate(&context, &encode(kind), &mut txn);
        let reply = PlacementReply::decode(reply).unwrap();
        for (key, value) in txn.into_writes() {
            match value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
        match reply.error.is_empty() {
            true => Ok(reply.tables),
            false => {
                assert_eq!(*records, before, "a refused command changes nothing");
                Err(reply.error)
            }
        }
    }

    #[test]
    fn a_table_from_its_creation_to_its_end() {
        let mut records = BTreeMap::new();
        let create = |name: &str| {
            let record = TableRecord {
                name: name.into(),
                partition_name: "pk".into(),
                ..TableRecord::default()
            };
            Kind::CreateTable(CreateTable {
                record: Some(record),
            })
        };
        let update = |record: &TableRecord| {
            Kind::UpdateTable(UpdateTable {
                record: Some(record.clone()),
            })
        };
        let first = run(&mut records, create("b")).unwrap().remove(0);
        let second = run(&mut records, create("a")).unwrap().remove(0);
        assert_ne!(first.id, second.id);
        assert!(run(&mut records, create("a"))
            .unwrap_err()
            .contains("exists"));
        let all = run(&mut records, Kind::ReadTables(ReadTables {})).unwrap();
        assert_eq!(all, [second.clone(), first.clone()]);
        let mut changed = first.clone();
        changed.read_units = 7;
        changed.partition_name = "other".into();
        let changed = run(&mut records, update(&changed)).unwrap().remove(0);
        assert_eq!((changed.revision, &*changed.partition_name), (2, "pk"));
        assert!(run(&mut records, update(&first))
            .unwrap_err()
            .contains("meanwhile"));
        let remove = |id| Kind::RemoveTable(RemoveTable { id });
        assert!(run(&mut records, remove(first.id))
            .unwrap_err()
            .contains("in use"));
        let doomed = TableRecord {
            deleting: true,
            ..changed
        };
        let doomed = run(&mut records, update(&doomed)).unwrap().remove(0);
        assert!(run(&mut records, create("b"))
            .unwrap_err()
            .contains("exists"));
        assert!(run(&mut records, update(&doomed))
            .unwrap_err()
            .contains("being deleted"));
        run(&mut records, remove(first.id)).unwrap();
        assert_eq!(run(&mut records, remove(first.id)), Ok(Vec::new()));
        let again = run(&mut records, create("b")).unwrap().remove(0);
        assert!(again.id > second.id);
    }
}
