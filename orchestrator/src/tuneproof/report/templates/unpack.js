// The packed parts of the page: base64 of gzip of JSON, each unpacked when it is first needed.
const unpacked = new Map();

function unpack(name) {
  if (!unpacked.has(name)) unpacked.set(name, inflate(document.getElementById(`pack-${name}`).textContent));
  return unpacked.get(name);
}

async function inflate(text) {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// The value with this number; `starts` has the number of each part's first value.
async function unpackOne(kind, starts, number) {
  let part = starts.length - 1;
  while (starts[part] > number) part--;
  return (await unpack(`${kind}-${part}`))[number - starts[part]];
}
