// The process whose heap the set "node" is taken from: a small session store such as services keep in memory
// (a Map with LRU eviction, JSON in and out, strings, counters), under a steady load. Runs until it is killed.

const SESSIONS_MAX = 40_000;
const RESPONSES_KEPT = 8_000;
const TURN_MS = 5;
/** Some 40 % of a core; without a pause every page of the heap would be dirty all the time. */
const REQUESTS_PER_TURN = 120;

interface Session {
  id: string;
  user: { name: string; mail: string };
  visits: number;
  seenAt: number;
  cart: { item: string; price: number; count: number }[];
}

const sessions = new Map<string, Session>();
const responses: string[] = [];
const hitsPerMinute = new Float64Array(60 * 24);
const WORDS =
  "river stone paper lamp cloud garden silver north window bread letter harbour amber field".split(" ");

const below = (limit: number): number => Math.floor(Math.random() * limit);
const word = (): string => WORDS[below(WORDS.length)]!;
const id = (): string =>
  `${Math.random().toString(36).slice(2, 12)}${Math.random().toString(36).slice(2, 12)}`;

function newSession(): Session {
  const name = `${word()}.${word()}${below(10_000)}`;
  const cart = Array.from({ length: below(5) }, () => ({
    item: `${word()} ${word()}`,
    price: below(100_000) / 100,
    count: 1 + below(9),
  }));
  return { id: id(), user: { name, mail: `${name}@example.org` }, visits: 0, seenAt: Date.now(), cart };
}

const ids: string[] = [];
function add(): void {
  const session = newSession();
  sessions.set(session.id, session);
  if (ids.length < SESSIONS_MAX) ids.push(session.id);
  else ids[below(ids.length)] = session.id;
  if (sessions.size > SESSIONS_MAX) sessions.delete(sessions.keys().next().value!);
}

function request(turn: number): void {
  if (below(10) < 2) add();
  const session = sessions.get(ids[below(ids.length)]!);
  hitsPerMinute[turn % hitsPerMinute.length]! += 1;
  if (session === undefined) return;
  session.visits++;
  session.seenAt = Date.now();
  if (below(4) === 0) session.cart.push({ item: word(), price: below(9_999) / 100, count: 1 });
  if (session.cart.length > 8) session.cart.shift();
  // The most recently used is the last of the Map.
  sessions.delete(session.id);
  const response = JSON.stringify(session);
  responses[(turn + below(RESPONSES_KEPT)) % RESPONSES_KEPT] = response;
  sessions.set(session.id, below(8) === 0 ? (JSON.parse(response) as Session) : session);
}

for (let i = 0; i < SESSIONS_MAX; i++) add();
let turn = 0;
setInterval(() => {
  turn++;
  for (let i = 0; i < REQUESTS_PER_TURN; i++) request(turn);
}, TURN_MS);
process.stdout.write("ready\n");
