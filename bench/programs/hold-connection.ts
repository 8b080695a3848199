/** Opens a connection, prints its source port, keeps it open: `… hold-connection.ts HOST PORT`. */
import { connect } from 'node:net';

const [host = '', port = '80'] = process.argv.slice(2);
const socket = connect({ host, port: Number(port) }, () => {
  process.stdout.write(`${String(socket.localPort)}\n`);
});
