// Reads an AsyncAPI document with the official parser; prints what it remarks, one a line; exit code 1 when there is anything.
const { Parser, fromFile } = require('@asyncapi/parser');

const NAMES = ['error', 'warning', 'information', 'hint'];

fromFile(new Parser(), process.argv[2]).parse().then(({ document, diagnostics }) => {
  for (const found of diagnostics) {
    console.log(`${NAMES[found.severity]} ${found.path.join('.')}: ${found.message}`);
  }
  if (document) console.error(`${document.operations().all().length} operations, ${document.allMessages().all().length} messages`);
  process.exitCode = document && diagnostics.length === 0 ? 0 : 1;
}, (error) => { console.log(`error: ${error.message}`); process.exitCode = 1; });
