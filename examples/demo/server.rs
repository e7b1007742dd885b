//! The application of the demo: a server that speaks the MySQL protocol in plaintext and knows nothing
//! of TLS. It understands as much SQL as the demo and the start of a real client need.

use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;

use async_trait::async_trait;
use opensrv_mysql::{
    AsyncMysqlIntermediary, AsyncMysqlShim, Column, ColumnFlags, ColumnType, ErrorKind, InitWriter,
    OkResponse, ParamParser, QueryResultWriter, StatementMetaWriter,
};
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;

const VERSION: &str = "8.0.0-twinlock-demo";
const DATABASE: &str = "demo";
/// The server's only table.
const LEGS: [[&str; 2]; 3] = [
    ["client -> egress", "plaintext"],
    ["egress -> ingress", "mutual TLS"],
    ["ingress -> server", "plaintext"],
];
const ADVICE: &str = "this small server knows SELECT of literals, functions and @@variables, \
                      SELECT * FROM legs, SHOW DATABASES and SHOW TABLES; not";

/// Starts the server on a free port.
pub async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let mut id = 0;
        while let Ok((stream, _)) = listener.accept().await {
            id += 1;
            // A refusal costs speed only.
            let _ = stream.set_nodelay(true);
            let session = Session { id, user: OnceLock::new() };
            let (input, output) = stream.into_split();
            // A client that breaks off ends its own session only.
            tokio::spawn(async move { AsyncMysqlIntermediary::run_on(session, input, output).await });
        }
    });
    Ok(address)
}

/// One client's session.
struct Session {
    id: u32,
    user: OnceLock<String>,
}

/// What a statement leads to.
enum Answer {
    Done,
    Rows { columns: Vec<Column>, rows: Vec<Vec<String>> },
    Unknown(String),
}

impl Session {
    fn answer(&self, statement: &str) -> Answer {
        let statement = statement.trim().trim_end_matches(';').trim();
        let words: Vec<_> = statement.split_whitespace().map(str::to_ascii_lowercase).collect();
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["show", "databases"] => rows(&["Database"], &[[DATABASE]]),
            ["show", "tables"] => rows(&["Tables_in_demo"], &[["legs"]]),
            ["select", "*", "from", "legs" | "demo.legs"] => rows(&["leg", "carries"], &LEGS),
            ["set" | "begin" | "commit" | "rollback", ..] | ["start", "transaction", ..] => Answer::Done,
            ["select", .., "limit", "1"] => self.select(&statement[7..statement.len() - 7]),
            ["select", ..] => self.select(&statement[6..]),
            _ => Answer::Unknown(statement.into()),
        }
    }

    fn select(&self, list: &str) -> Answer {
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for item in split(list) {
            let alias = item.to_ascii_lowercase().rfind(" as ");
            let (item, name) = alias.map_or((item, item), |at| (&item[..at], &item[at + 4..]));
            let Some(value) = self.value(item.trim()) else { return Answer::Unknown(item.trim().into()) };
            names.push(name.trim().trim_matches('\''));
            values.push(value);
        }
        Answer::Rows { columns: names.into_iter().map(column).collect(), rows: vec![values] }
    }

    fn value(&self, item: &str) -> Option<String> {
        if let Some(text) = item.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
            return Some(text.into());
        }
        if item.parse::<i64>().is_ok() {
            return Some(item.into());
        }
        Some(match item.to_ascii_lowercase().as_str() {
            "version()" | "@@version" => VERSION.into(),
            "@@version_comment" => "embedded server of the demo".into(),
            "connection_id()" => self.id.to_string(),
            "database()" => DATABASE.into(),
            "user()" | "current_user()" => {
                format!("{}@127.0.0.1", self.user.get().map_or("", String::as_str))
            }
            "@@max_allowed_packet" => (64 << 20).to_string(),
            "@@wait_timeout" => 28_800.to_string(),
            name if name.starts_with("@@character_set_") => "utf8mb4".into(),
            _ => return None,
        })
    }
}

/// The items of a list, its commas in quotes left alone.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    list.split(move |letter| {
        quoted ^= letter == '\'';
        letter == ',' && !quoted
    })
}

fn rows<const WIDTH: usize>(names: &[&str; WIDTH], rows: &[[&str; WIDTH]]) -> Answer {
    let rows = rows.iter().map(|row| row.map(str::to_owned).to_vec());
    Answer::Rows { columns: names.map(column).to_vec(), rows: rows.collect() }
}

fn column(name: &str) -> Column {
    Column {
        table: String::new(),
        column: name.into(),
        coltype: ColumnType::MYSQL_TYPE_VAR_STRING,
        colflags: ColumnFlags::empty(),
    }
}

#[async_trait]
impl<W: AsyncWrite + Send + Unpin> AsyncMysqlShim<W> for Session {
    type Error = io::Error;

    fn version(&self) -> String {
        VERSION.into()
    }

    fn connect_id(&self) -> u32 {
        self.id
    }

    /// Whoever comes may come in.
    async fn authenticate(&self, _plugin: &str, user: &[u8], _salt: &[u8], _proof: &[u8]) -> bool {
        self.user.get_or_init(|| String::from_utf8_lossy(user).into_owned());
        true
    }

    async fn on_init<'a>(&'a mut self, database: &'a str, writer: InitWriter<'a, W>) -> io::Result<()> {
        if database == DATABASE {
            return writer.ok().await;
        }
        writer.error(ErrorKind::ER_BAD_DB_ERROR, format!("Unknown database '{database}'").as_bytes()).await
    }

    async fn on_query<'a>(&'a mut self, query: &'a str, writer: QueryResultWriter<'a, W>) -> io::Result<()> {
        match self.answer(query) {
            Answer::Done => writer.completed(OkResponse::default()).await,
            Answer::Unknown(what) => {
                writer.error(ErrorKind::ER_PARSE_ERROR, format!("{ADVICE}: {what}").as_bytes()).await
            }
            Answer::Rows { columns, rows } => {
                let mut writer = writer.start(&columns).await?;
                for row in rows {
                    writer.write_row(row).await?;
                }
                writer.finish().await
            }
        }
    }

    async fn on_prepare<'a>(&'a mut self, _: &'a str, writer: StatementMetaWriter<'a, W>) -> io::Result<()> {
        writer.error(ErrorKind::ER_UNSUPPORTED_PS, b"no prepared statements in this small server").await
    }

    async fn on_execute<'a>(
        &'a mut self,
        _: u32,
        _: ParamParser<'a>,
        writer: QueryResultWriter<'a, W>,
    ) -> io::Result<()> {
        writer.error(ErrorKind::ER_UNKNOWN_STMT_HANDLER, b"nothing was prepared").await
    }

    async fn on_close<'a>(&'a mut self, _: u32)
    where
        W: 'async_trait,
    {
    }
}
