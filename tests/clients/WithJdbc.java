// JDBC, with a fetch size, as Metabase, DBeaver and Tableau connect.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.Statement;

public class WithJdbc {
    static Statement statement;

    public static void main(String[] arguments) throws Exception {
        try (Connection client = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            System.out.println("version\t" + client.getMetaData().getDriverVersion());
            client.setAutoCommit(false);
            statement = client.createStatement();
            ResultSet types = statement.executeQuery(System.getenv("ASK_TYPES"));
            ResultSetMetaData columns = types.getMetaData();
            for (int column = 1; column <= columns.getColumnCount(); column++) {
                String type = columns.getColumnTypeName(column) + " " + columns.getColumnClassName(column);
                System.out.println("types\t" + columns.getColumnName(column) + "\t" + type);
            }
            for (String question : new String[] {"nearest", "hundred", "filter", "all"}) {
                // Only with a fetch size and without autocommit does the driver use a cursor.
                statement.setFetchSize(question.equals("all") ? 50 : 0);
                ResultSet answer = statement.executeQuery(System.getenv("ASK_" + question.toUpperCase()));
                while (answer.next()) {
                    System.out.println(question + "\t" + answer.getString("id"));
                }
            }
        }
    }
}
