// Runs tus-js-client: in Node, which finds it by NODE_PATH, and in a browser, which runs all but main().
const REPORTED = ['Upload-Offset', 'Upload-Complete', 'Location'];

const upload = (tus, file, options) => new Promise((resolve) => {
  const requests = [];
  const done = (error) => resolve({ error, requests });
  new tus.Upload(file, {
    ...options,
    retryDelays: Array(200).fill(100),
    onBeforeRequest: (request) => {
      const offset = request.getHeader('Upload-Offset');
      requests.push({ method: request.getMethod(), offset, status: null });
    },
    onAfterResponse: (request, response) => {
      const seen = requests.at(-1);
      seen.status = response.getStatus();
      for (const name of REPORTED) seen[name] = response.getHeader(name);
    },
    onError: (error) => done(error.message),
    onSuccess: () => done(null),
  }).start();
});

const main = async () => {
  const fs = require('node:fs');
  const http = require('node:http');
  const path = require('node:path');
  const readline = require('node:readline');
  const tus = require('tus-js-client');
  console.log(JSON.stringify(`tus-js-client ${require('tus-js-client/package.json').version}`));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [protocol, file, endpoint] = line.split(' ');
    const agent = new http.Agent({ keepAlive: true });
    console.log(JSON.stringify(await upload(tus, fs.createReadStream(file), {
      endpoint,
      protocol,
      metadata: { filename: path.basename(file) },
      httpStack: new tus.DefaultHttpStack({ agent }),
    })));
    agent.destroy();
  }
};
if (typeof window === 'undefined') main();
