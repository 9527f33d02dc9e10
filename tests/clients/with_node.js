// node-postgres, with pg-cursor.
const { Client } = require("pg");
const Cursor = require("pg-cursor");

const tell = (...words) => process.stdout.write(words.join("\t") + "\n");

(async () => {
  tell("version", `pg ${require("pg/package.json").version}`);
  const client = new Client({ connectionString: process.env.READER_URL });
  await client.connect();
  const types = await client.query(process.env.ASK_TYPES);
  for (const { name } of types.fields) {
    const value = types.rows[0][name];
    tell("types", name, value === null ? "null" : value.constructor.name);
  }
  for (const question of ["nearest", "hundred", "filter"]) {
    const answer = await client.query(process.env[`ASK_${question.toUpperCase()}`]);
    for (const row of answer.rows) tell(question, row.id);
  }
  const cursor = client.query(new Cursor(process.env.ASK_ALL));
  for (let page = await cursor.read(50); page.length; page = await cursor.read(50)) {
    for (const row of page) tell("all", row.id);
  }
  await client.end();
})().catch((error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
