const readline = require('node:readline');
const { setImmediate } = require('node:timers/promises');

const upload = async (body, url) => {
  try {
    const response = await fetch(url, {
      method: 'PUT', body, headers: { Authorization: 'Bearer letmein' },
    });
    await response.arrayBuffer();
    return { status: response.status, url: response.url };
  } catch (error) {
    return { status: error.name, message: String(error.cause) };
  }
};

const main = async () => {
  console.log(JSON.stringify(`Node fetch ${process.versions.node} (undici ${process.versions.undici})`));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [, size, ...urls] = line.split(' ');
    const body = new Blob([Buffer.alloc(+size, '0123456789abcdef')]);
    const seen = [];
    for (const url of urls) {
      seen.push(await upload(body, url));
      await setImmediate(); // before that, the connection is not free, and fetch would open another one
    }
    console.log(JSON.stringify(seen));
  }
};
main();
