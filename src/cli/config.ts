// `deltavee config`: the configuration file of the service, checked, or written for a start.

import { Command } from "commander";
import { checkSettings } from "../service/run-service.ts";
import { defaultFileText, readSettings, settingsJsonSchema } from "../service/settings-file.ts";

const HELP = `
Examples:
  deltavee config print-default > /etc/deltavee/serve.yaml
  deltavee config check /etc/deltavee/serve.yaml
`;

export function configCommand(): Command {
  const command = new Command("config").description("the configuration file of deltavee serve");
  command
    .command("check")
    .description("read it as deltavee serve would, and say what is wrong with it")
    .argument("<file>", "YAML, or JSON")
    .option("--json", "print the settings that come of it, in base units, as JSON")
    .addHelpText("after", "\nExample:\n  deltavee config check /etc/deltavee/serve.yaml\n")
    .action((file: string, { json }: { json?: true }) => {
      const settings = readSettings(file);
      checkSettings(settings);
      process.stdout.write(json ? `${JSON.stringify(settings, null, 2)}\n` : `${file}: as it should be\n`);
    });
  command
    .command("print-default")
    .description("print the file that says what is so without one, each key with what it is for")
    .addHelpText("after", "\nExample:\n  deltavee config print-default > /etc/deltavee/serve.yaml\n")
    .action(() => {
      process.stdout.write(defaultFileText());
    });
  command
    .command("schema")
    .description("print its JSON Schema, for editors")
    .addHelpText("after", "\nExample:\n  deltavee config schema > serve.schema.json\n")
    .action(() => {
      process.stdout.write(`${JSON.stringify(settingsJsonSchema(), null, 2)}\n`);
    });
  return command.addHelpText("after", HELP);
}
