# R with DBI: RPostgres if it is installed, otherwise RPostgreSQL.
suppressPackageStartupMessages(library(DBI))
driver <- if (requireNamespace("RPostgres", quietly = TRUE)) "RPostgres" else "RPostgreSQL"
of <- if (driver == "RPostgres") RPostgres::Postgres() else RPostgreSQL::PostgreSQL()
env <- Sys.getenv
client <- suppressWarnings(dbConnect(of, host = env("PGHOST"), port = as.integer(env("PGPORT")),
    user = env("PGUSER"), password = env("PGPASSWORD"), dbname = env("PGDATABASE")))
tell <- function(...) cat(paste(..., sep = "\t"), sep = "\n")
tell("version", paste0("R ", getRversion(), ", ", driver, " ", packageVersion(driver)))
# RPostgreSQL warns of types that it does not know, and gives them as text.
one <- suppressWarnings(dbGetQuery(client, env("ASK_TYPES")))
for (name in names(one)) tell("types", name, class(one[[name]])[1])
for (question in c("nearest", "hundred", "filter")) {
    answer <- suppressWarnings(dbGetQuery(client, env(paste0("ASK_", toupper(question)))))
    tell(question, answer$id)
}
sent <- suppressWarnings(dbSendQuery(client, env("ASK_ALL")))
while (!dbHasCompleted(sent)) {
    page <- suppressWarnings(dbFetch(sent, n = 50))
    if (nrow(page)) tell("all", page$id)
}
invisible(dbClearResult(sent))
invisible(dbDisconnect(client))
