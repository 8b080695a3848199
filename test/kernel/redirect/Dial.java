import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.net.Socket;

/** Sends one line to an address and a port; prints the reply and the socket's peer. */
public class Dial {
    public static void main(String[] words) throws Exception {
        try (Socket socket = new Socket()) {
            socket.connect(new InetSocketAddress(words[0], Integer.parseInt(words[1])), 5000);
            socket.setSoTimeout(5000);
            socket.getOutputStream().write("hello\n".getBytes());
            String line = new BufferedReader(new InputStreamReader(socket.getInputStream())).readLine();
            System.out.println(line + " to" + socket.getRemoteSocketAddress());
        }
    }
}
