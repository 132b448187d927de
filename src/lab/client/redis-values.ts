// Values as an application keeps them in a key-value store: a document with a few dozen fields, of which all contents
// differ from key to key and from version to version. What a key holds can be told from key and version alone, so that
// nothing of it need be kept to know whether the store has lost or damaged it.

/** About as many bytes as one field takes. */
const FIELD_BYTES = 16;
const FIELD_NAMES = (
  "name,mail,role,team,city,lang,zone,plan,cart,item,size,cost,rate,note,seen,last," +
  "next,hits,page,from,host,agent,token,state,level,score,group,phone,title,order,total,stamp"
).split(",");

const HEADER = /^\{"key":(\d+),"version":(\d+)/;

/** From 1/2 to 3/2 of `valueBytes`, roughly; a key's values keep their length, as most do that are updated. */
export function documentOf(key: number, version: number, valueBytes: number): string {
  let random = scrambled(Math.imul(key, 0x9e37_79b1) ^ Math.imul(version + 1, 0x85eb_ca77));
  const lengthShare = 0.5 + scrambled(key) / 2 ** 32;
  const fieldCount = Math.max(1, Math.round((valueBytes * lengthShare) / FIELD_BYTES));
  let value = `{"key":${key},"version":${version}`;
  for (let field = 0; field < fieldCount; field++) {
    random = scrambled(random + field);
    value += `,"${FIELD_NAMES[field % FIELD_NAMES.length]}":"${random.toString(36)}"`;
  }
  return `${value}}`;
}

/** The version of the value that is stored; undefined when it is no value of that key, whole and unchanged. */
export function versionOf(stored: string, key: number, valueBytes: number): number | undefined {
  const [, storedKey, version] = HEADER.exec(stored) ?? [];
  if (storedKey !== String(key)) return undefined;
  return stored === documentOf(key, Number(version), valueBytes) ? Number(version) : undefined;
}

/** The finaliser of MurmurHash3: every bit of the result hangs on every bit of `bits`. */
function scrambled(bits: number): number {
  let hash = bits >>> 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
