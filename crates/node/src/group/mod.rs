//! Groups of runners: their tasks (the asynchronous kind), their views, and what the API says of them.

mod api;
