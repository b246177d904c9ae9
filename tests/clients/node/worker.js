// Microsoft's clients for Node, in one process for many tests: a line of JSON in, a line of JSON out.
//
//   {"id": 1, "verb": "back_end.call", "asked": {…}}    asks for a verb of one of the modules beside this file;
//   {"id": 1, "result": …} or {"id": 1, "error": {…}}   is the answer, in whatever order they are done;
//   {"name": "pump-7", "news": "message", "value": …}   is what a client was told in between.
'use strict';

const readline = require('readline');

// A client has errors of its own, of rhea and of HTTP; what an outsider would look at of each.
function described(error) {
  return {
    name: error.name || error.condition,
    message: error.message || error.description || String(error),
    code: error.code,
    status: error.response && error.response.statusCode,
    body: error.responseBody,
  };
}

function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

function tell(name, news, value) {
  say({ name, news, value: value instanceof Error ? described(value) : value });
}

async function run({ id, verb, asked }) {
  try {
    const [module, name] = verb.split('.');
    const result = await require(`./${module}.js`)[name](asked, tell);
    say({ id, result });
  } catch (error) {
    say({ id, error: described(error) });
  }
}

// Some of these clients throw where nobody can catch it: that costs a test, not the process.
process.on('uncaughtException', (error) => tell('worker', 'error', error));
process.on('unhandledRejection', (error) => tell('worker', 'error', error));

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => run(JSON.parse(line)));
lines.on('close', () => process.exit(0));
