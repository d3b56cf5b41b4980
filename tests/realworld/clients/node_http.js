const http = require('node:http');
const readline = require('node:readline');

const upload = (agent, way, body, url) => new Promise((resolve) => {
  const headers = { 'Content-Length': body.length, Authorization: 'Bearer letmein' };
  if (way === 'ask') headers.Expect = '100-continue';
  const request = http.request(url, { method: 'PUT', agent, headers });
  request.on('response', (response) => {
    response.resume();
    response.on('end', () => resolve({ status: response.statusCode, url }));
  });
  request.on('error', (error) => resolve({ status: error.code, message: String(error) }));
  if (way === 'ask') request.on('continue', () => request.end(body));
  else request.end(body);
});

const main = async () => {
  console.log(JSON.stringify(`Node http ${process.versions.node}`));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [way, size, ...urls] = line.split(' ');
    const agent = new http.Agent({ keepAlive: true });
    const seen = [];
    for (const url of urls) seen.push(await upload(agent, way, Buffer.alloc(+size, '0123456789abcdef'), url));
    console.log(JSON.stringify(seen));
    agent.destroy();
  }
};
main();
