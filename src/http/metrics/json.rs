//! Families as JSON: `{"rangekv_…": {"help", "kind", "samples": [{"labels", "value"}]}}`.

use super::{Family, Value};
use serde_json::{json, Map, Value as Json};

/// All of `families`, by name.
pub fn json(families: &[Family]) -> Json {
    let families = families.iter().map(|family| {
        let samples: Vec<Json> = family
            .samples
            .iter()
            .map(|sample| {
                let labels = sample.labels.iter();
                let labels: Map<String, Json> = labels
                    .map(|(name, value)| ((*name).to_owned(), json!(value)))
                    .collect();
                match &sample.value {
                    Value::Whole(n) => json!({ "labels": labels, "value": n }),
                    Value::Number(n) => json!({ "labels": labels, "value": n }),
                    Value::Histogram {
                        at_most,
                        count,
                        sum,
                    } => json!({
                        "labels": labels,
                        "count": count,
                        "sum": sum,
                        "at_most": at_most
                            .iter()
                            .map(|(bound, count)| json!([bound, count]))
                            .collect::<Vec<_>>(),
                    }),
                }
            })
            .collect();
        let kind = format!("{:?}", family.kind).to_lowercase();
        let family_json = json!({ "help": family.help, "kind": kind, "samples": samples });
        (family.name.clone().into_owned(), family_json)
    });
    Json::Object(families.collect())
}
