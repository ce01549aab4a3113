//! DynamoDB's API over a keyspace in memory that is cut into several ranges.

mod cluster;
mod fuzz;
mod items;
mod pages;
mod tables;
mod together;
