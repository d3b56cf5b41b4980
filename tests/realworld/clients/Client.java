import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.List;
import java.util.Scanner;

class Client {
    static String upload(HttpClient client, String way, byte[] body, String url) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url))
            .header("Authorization", "Bearer letmein")
            .expectContinue(way.equals("ask"))
            .PUT(HttpRequest.BodyPublishers.ofByteArray(body))
            .build();
        try {
            HttpResponse<byte[]> response =
                client.send(request, HttpResponse.BodyHandlers.ofByteArray());
            return String.format(
                "{\"status\": %d, \"url\": \"%s\"}", response.statusCode(), response.uri());
        } catch (java.io.IOException error) {
            return String.format("{\"status\": \"%s\", \"message\": \"%s\"}",
                error.getClass().getSimpleName(), error.getMessage());
        }
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println("\"Java HttpClient " + Runtime.version() + "\"");
        Scanner lines = new Scanner(System.in);
        while (lines.hasNextLine()) {
            String[] words = lines.nextLine().split(" ");
            byte[] body = "0123456789abcdef".repeat(Integer.parseInt(words[1]) / 16).getBytes();
            HttpClient client = HttpClient.newBuilder()
                .followRedirects(HttpClient.Redirect.NORMAL)
                .build();
            List<String> seen = new ArrayList<>();
            for (int i = 2; i < words.length; i++) {
                seen.add(upload(client, words[0], body, words[i]));
            }
            System.out.println(seen);
        }
    }
}
