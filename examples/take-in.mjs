// Takes a VM in, for a QEMU that was started with -incoming defer: node examples/take-in.mjs /run/vm.qmp 127.0.0.1:4445

import { receive } from "deltavee";

const [qmp, listen] = process.argv.slice(2);
const { vm } = await receive({ qmp, listen, onListening: (address) => console.log(`waiting on ${address}`) });
console.log(`The guest is ${vm}`);
